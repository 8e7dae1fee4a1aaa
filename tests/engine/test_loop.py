import inspect
import json
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from polarjax.core import CheckpointError, ConfigError, DataError, NumericError
from polarjax.engine import checkpoints, interruption, loop, sharding
from polarjax.engine.state import flatten
from tests.engine import toy


def run(workdir, *, stop=None, data=None, system=None, **overrides):
    config = toy.make_config(**overrides)
    data = data or toy.make_data(config.data.batch_size)
    return loop.train(config, system or toy.make_system(), data, workdir, stop=stop)


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(lines):
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def assert_same_bits(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path in left:
        assert np.asarray(left[path]).tobytes() == np.asarray(right[path]).tobytes(), path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted: its folder and its last state."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, run(workdir)


def test_training_raises_the_bits_per_spike_and_logs_every_number(whole):
    workdir, state = whole
    lines = lines_of(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert lines[-1]["eval/bits_per_spike"] > lines[1]["eval/bits_per_spike"]
    expected = {
        *(
            "step",
            "train/loss",
            "train/loss_poisson",
            "train/grad_norm",
            "train/clipped_share",
            "train/skipped_steps",
        ),
        *(
            "optim/lr_core",
            "optim/lr_readout",
            "time/samples_per_second",
            "time/data_wait",
            "temporal/tau_fix_ms",
        ),
    }
    assert set(lines[0]) == expected
    assert set(lines[1]) == {*expected, "eval/bits_per_spike"}
    assert int(state.step) == 12


def test_the_workdir_has_its_documented_layout(whole):
    workdir, _ = whole
    assert json.loads((workdir / "config.json").read_text())["train"]["num_steps"] == 12
    assert list((workdir / "tensorboard").glob("events.*"))
    _, meta = checkpoints.restore(workdir)
    assert {"format_version", "config", "info", "versions", "git_commit", "step", "metrics"} <= set(meta)
    assert meta["info"]["sessions"][0]["unit_ids"] == ["u0", "u1", "u2"]
    assert meta["metrics"].keys() == {"eval/bits_per_spike"}


@pytest.mark.parametrize("at", [3, 4, 7])
def test_a_resumed_run_equals_one_that_was_never_interrupted_bit_for_bit(whole, tmp_path, at):
    with pytest.raises(
        interruption.Interrupted, match=rf"stopped at step {at} and saved.*run the same line again"
    ):
        run(tmp_path, stop=lambda step: step == at)
    state = run(tmp_path)
    assert_same_bits(state, whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_a_killed_run_continues_from_its_checkpoint_without_gap_or_double_in_the_log(whole, tmp_path):
    class Killed(BaseException):
        pass

    data = toy.make_data()

    def train(step):
        if step == 7:
            raise Killed
        return data.train(step)

    with pytest.raises(Killed):
        run(tmp_path, data=data._replace(train=train))
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6]
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"step": 8, "train/lo')
    state = run(tmp_path)
    assert_same_bits(state, whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_a_finished_run_is_left_as_it_is(whole):
    workdir, state = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    assert_same_bits(run(workdir), state)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_one_and_four_devices_agree(whole, tmp_path, monkeypatch):
    one = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda: one)
    state = run(tmp_path)
    assert len(whole[1].params["core"]["kernel"].sharding.device_set) == 4
    assert len(state.params["core"]["kernel"].sharding.device_set) == 1
    for path, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, flatten(whole[1].params)[path], rtol=1e-6, atol=1e-6)


def test_a_checkpoint_of_four_devices_continues_on_one(whole, tmp_path, monkeypatch):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, stop=lambda step: step == 6)
    one = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda: one)
    state = run(tmp_path)
    for path, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, flatten(whole[1].params)[path], rtol=1e-6, atol=1e-6)


def test_micro_batches_give_the_step_of_the_whole_batch(tmp_path):
    quiet = toy.make_system(noise=0.0)
    states = [
        run(tmp_path / str(k), system=quiet, **{"optim.accumulate": k, "train.num_steps": 6}) for k in (1, 2)
    ]
    for path, leaf in flatten(states[0].params).items():
        np.testing.assert_allclose(leaf, flatten(states[1].params)[path], rtol=1e-5, atol=1e-6)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, capsys):
    run(tmp_path, data=toy.make_data(not_finite=(4,)))
    lines = lines_of(tmp_path)
    assert [line["train/skipped_steps"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert all(np.isfinite(line["train/loss"]) for line in lines)
    assert (
        "step 5: the loss or its gradient is not finite, nothing was updated (1 in a row)"
        in capsys.readouterr().out
    )


def test_steps_that_stay_not_finite_stop_the_run_and_no_checkpoint_holds_a_nan(tmp_path):
    with pytest.raises(
        NumericError, match=r"3 steps in a row, up to step 9; the last good step is 6"
    ) as error:
        run(tmp_path, data=toy.make_data(not_finite=range(6, 100)), **{"train.save_every": 1})
    assert error.value.exit_code == 5
    state, meta = checkpoints.restore(tmp_path)
    assert meta["step"] in (7, 8)
    assert all(np.isfinite(leaf).all() for leaf in flatten(state).values())


def test_skips_in_a_row_are_counted_across_a_resume(tmp_path):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, data=toy.make_data(not_finite=range(6, 100)), stop=lambda step: step == 8)
    with pytest.raises(NumericError, match=r"3 steps in a row, up to step 9; the last good step is 6"):
        run(tmp_path, data=toy.make_data(not_finite=range(6, 100)))


def test_a_frozen_group_does_not_change(tmp_path):
    state = run(tmp_path, **{"optim.groups.core": None, "train.keep_latest": 9})
    start, _ = checkpoints.restore(tmp_path, 0)
    assert_same_bits(state.params["core"], start.params["core"])
    assert np.any(np.asarray(state.params["readout"]["kernel"]) != start.params["readout"]["kernel"])


def test_nothing_is_compiled_after_the_first_step(tmp_path):
    traces = []
    system = toy.make_system()

    def loss(params, state, batch, rng):
        traces.append(1)
        return system.loss(params, state, batch, rng)

    run(tmp_path, system=system._replace(loss=loss))
    assert len(traces) == 1


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
    scores = iter([1.0, 9.0, 2.0, 3.0, 4.0, 5.0])
    system = toy.make_system()._replace(eval_metrics=lambda sums: {"bits_per_spike": next(scores)})
    with pytest.raises(interruption.Interrupted):
        run(
            tmp_path,
            system=system,
            stop=lambda step: step == 6,
            **{"train.eval_every": 2, "train.save_every": 2},
        )
    run(tmp_path, system=system, **{"train.eval_every": 2, "train.save_every": 2})
    assert checkpoints.list_steps(tmp_path) == [4, 10, 12]
    assert checkpoints.restore(tmp_path, "best")[1]["step"] == 4
    assert checkpoints.restore(tmp_path, "latest")[1]["step"] == 12
    assert not list((tmp_path / "checkpoints" / ".trash").iterdir())


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_continues(whole, tmp_path, capsys):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, stop=lambda step: step == 6)
    flip_a_bit(tmp_path / "checkpoints" / "6")
    assert_same_bits(run(tmp_path), whole[1])
    printed = capsys.readouterr().out
    assert "warning: " in printed and "checkpoints/6: step 6 is damaged" in printed
    assert "continuing from step 4" in printed
    assert (tmp_path / "checkpoints" / "corrupt-6").is_dir()
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again(tmp_path):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, stop=lambda step: step == 3)
    for step in (0, 3):
        flip_a_bit(tmp_path / "checkpoints" / str(step))
    with pytest.raises(
        CheckpointError, match="no checkpoint of .* is intact.*step 3 is damaged.*step 0 is damaged"
    ):
        run(tmp_path)


def flip_a_bit(folder):
    """Damages every file of the arrays' values."""
    for path in (folder / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_another_config_is_refused_with_both_values(whole):
    with pytest.raises(
        ConfigError, match=r"config\.optim\.b1 is 0\.9 there and 0\.8 here.*another --workdir"
    ):
        run(whole[0], **{"optim.b1": 0.8})
    with pytest.raises(ConfigError, match=r"config\.optim\.groups\.core is 'absent' there and None here"):
        run(whole[0], **{"optim.groups.core": None})


def test_intervals_may_change_between_two_parts_of_a_run(whole):
    state = run(
        whole[0], **{"train.log_every": 3, "train.eval_every": 5, "train.save_every": 1, "train.keep_best": 2}
    )
    assert_same_bits(state, whole[1])


def test_changed_data_are_refused_by_the_name_of_the_session(whole):
    with pytest.raises(DataError, match=r"the data of the run in .* have changed: session 'toy' is not what"):
        run(whole[0], data=toy.make_data(fingerprint="abd"))
    with pytest.raises(DataError, match=r"session 'one', 'toy', 'two' is not what"):
        run(whole[0], data=toy.make_data(sessions=("one", "two")))


def test_a_workdir_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match=rf"--workdir {workdir} cannot be written"):
            run(workdir)


def test_checkpoints_that_cannot_be_written_stop_the_run_before_its_first_step(tmp_path):
    (tmp_path / "below").write_text("")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "below")
    with pytest.raises(CheckpointError, match=r"checkpoints: a checkpoint cannot be written"):
        run(tmp_path)


def test_a_second_run_in_the_folder_is_refused_with_the_first_ones_host_and_process(tmp_path):
    data = toy.make_data()
    messages = []

    def train(step):
        if step == 3:
            with pytest.raises(CheckpointError) as error:
                run(tmp_path)
            messages.append(str(error.value))
        return data.train(step)

    run(tmp_path, data=data._replace(train=train))
    assert f"is in use by process {os.getpid()} on {os.uname().nodename}; wait for it" in messages[0]


def test_a_batch_that_the_devices_cannot_share_is_refused_with_the_nearest_sizes(tmp_path):
    message = (
        r"batch_size is 6, which 4 devices, 1 sessions .* multiple of 4; the nearest valid sizes are 4 and 8"
    )
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **{"data.batch_size": 6})
    with pytest.raises(
        ConfigError, match=r"accumulate = 2 .* multiple of 24; the nearest valid sizes are 24"
    ):
        run(tmp_path, data=toy.make_data(8, sessions=("a", "b", "c")), **{"optim.accumulate": 2})


def test_groups_that_the_model_lacks_are_named(tmp_path):
    groups = {"core": None, "readuot": {"learning_rate": 0.1, "weight_decay": 0.0}}
    with pytest.raises(
        ConfigError, match=r"Without an optimizer: \['readout'\]; without a parameter: \['readuot'\]"
    ):
        run(tmp_path, **{"optim.groups": groups})


def test_a_changed_model_is_refused_by_the_name_of_the_parameter(whole):
    system = toy.make_system()

    def init(rng, batch):
        variables = system.init(rng, batch)
        core = dict(variables["params"]["core"], bias=np.zeros(5, np.float32))
        return {**variables, "params": {**variables["params"], "core": core}}

    with pytest.raises(
        CheckpointError, match=r"params/core/bias is float32\[4\] in the checkpoint and float32\[5\]"
    ):
        run(whole[0], system=system._replace(init=init))


def test_a_signal_finishes_the_step_saves_and_asks_for_the_same_line(whole, tmp_path):
    data = toy.make_data()

    def train(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return data.train(step)

    assert threading.current_thread() is threading.main_thread()
    with (
        interruption.watch_signals() as stop,
        pytest.raises(interruption.Interrupted, match="run the same line") as left,
    ):
        run(tmp_path, data=data._replace(train=train), stop=stop)
    assert left.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert_same_bits(run(tmp_path), whole[1])


WORKER = """
import sys, pathlib
sys.path.insert(0, {root!r})
from polarjax.engine import checkpoints, loop, sharding
sharding.initialize_distributed(dict(coordinator_address={address!r}, num_processes="2", process_id=sys.argv[1]))
import jax
from tests.engine import toy
assert jax.process_count() == 2 and jax.device_count() == 4
config = toy.make_config()
loop.train(config, toy.make_system(), toy.make_data(), sys.argv[2])
if jax.process_index() == 0:
    print(checkpoints.restore(sys.argv[2])[1]["step"])
jax.distributed.shutdown()
"""


def test_two_processes_train_and_save_what_one_trains(whole, tmp_path, unused_port, repository):
    source = WORKER.format(root=str(repository), address=f"localhost:{unused_port}")
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", source]
    workers = [
        subprocess.Popen(
            [*command, str(index), str(tmp_path / "run")],
            env=environment,
            cwd=repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=80)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
    assert outputs[0].splitlines()[-1] == "12"
    state, _ = checkpoints.restore(tmp_path / "run")
    for path, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, flatten(whole[1].params)[path], rtol=1e-6, atol=1e-6)
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]


def test_the_loop_is_one_function_of_less_than_a_hundred_lines():
    assert len(inspect.getsource(loop.train).splitlines()) < 100


def test_a_run_killed_before_its_first_step_begins_again_from_its_first_checkpoint(whole, tmp_path):
    class Killed(BaseException):
        pass

    def constants(params):
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, system=toy.make_system()._replace(constants=constants))
    assert checkpoints.list_steps(tmp_path) == [0]
    assert_same_bits(run(tmp_path), whole[1])
