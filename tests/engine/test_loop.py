import inspect
import json

import numpy as np
import pytest

from polarjax.core import ConfigError, NumericError
from polarjax.engine import checkpoints, interruption, loop
from polarjax.engine.clock import CAUSES
from polarjax.engine.state import flatten
from tests.engine import toy
from tests.engine.runs import assert_same_bits, lines_of, run


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
            "time/step_median_ms",
            "time/step_p99_ms",
            "time/training_share",
            *(f"time/{cause}_share" for cause in CAUSES),
            "time/repeated_steps",
            "time/compiled_programs",
            "train/loss_spikes",
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


def test_a_batch_that_micro_batches_do_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size is 6, .* the nearest valid values are 4 and 8"):
        run(tmp_path, **{"data.batch_size": 6})


def test_groups_that_the_model_lacks_are_named(tmp_path):
    groups = {"core": None, "readuot": {"learning_rate": 0.1, "weight_decay": 0.0}}
    with pytest.raises(
        ConfigError, match=r"Without an optimizer: \['readout'\]; without a parameter: \['readuot'\]"
    ):
        run(tmp_path, **{"optim.groups": groups})


def test_the_loop_is_one_function_of_less_than_a_hundred_lines():
    assert len(inspect.getsource(loop.train).splitlines()) < 100
