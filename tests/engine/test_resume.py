import os
import signal
import threading

import numpy as np
import pytest

from polarjax.core import CheckpointError, NumericError
from polarjax.engine import checkpoints, interruption
from tests.engine import toy
from tests.engine.runs import Killed, assert_same_bits, flip_a_bit, kill, lines_of, run, without_times


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
    kill(tmp_path)
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


def test_skips_in_a_row_are_counted_across_a_resume(tmp_path):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, data=toy.make_data(not_finite=range(6, 100)), stop=lambda step: step == 8)
    with pytest.raises(NumericError, match=r"3 steps in a row, up to step 9; the last good step is 6"):
        run(tmp_path, data=toy.make_data(not_finite=range(6, 100)))


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


def test_intervals_and_the_length_of_the_floor_may_change_between_two_parts_of_a_run(whole):
    intervals = {"train.log_every": 3, "train.eval_every": 5, "train.save_every": 1}
    state = run(whole[0], **intervals, **{"train.keep_best": 2, "train.floor_steps": 7})
    assert_same_bits(state, whole[1])


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


def test_a_run_killed_before_its_first_step_begins_again_from_its_first_checkpoint(whole, tmp_path):
    def constants(params):
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, system=toy.make_system()._replace(constants=constants))
    assert checkpoints.list_steps(tmp_path) == [0]
    assert_same_bits(run(tmp_path), whole[1])
