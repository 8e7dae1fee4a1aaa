import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from polarjax.core import CheckpointError, ConfigError
from polarjax.engine import checkpoints, compilation, interruption, memory, storage, watchdog
from polarjax.engine.tally import SPIKE_STEPS, Tally
from tests.engine import toy
from tests.engine.runs import assert_same_bits, lines_of, run, without_times

USAGE = type(shutil.disk_usage("/"))


def fill_disk(monkeypatch, full):
    """Makes the disk look full in the calls of `full`, counted from 0."""
    calls = iter(range(1000))
    free = lambda path: USAGE(10**12, 0, 5 if next(calls) in full else 10**12)  # noqa: E731
    monkeypatch.setattr(storage.shutil, "disk_usage", free)


def test_a_full_disk_costs_one_checkpoint_and_training_goes_on(whole, tmp_path, monkeypatch, capsys):
    fill_disk(monkeypatch, {1})
    assert_same_bits(run(tmp_path), whole[1])
    assert checkpoints.list_steps(tmp_path) == [8, 12]
    printed = capsys.readouterr().out
    assert "a checkpoint needs 1,0" in printed and "bytes and 5 are free" in printed
    assert "training goes on, the next interval saves again" in printed


def test_the_third_failed_save_in_a_row_stops_the_run_and_what_was_saved_is_intact(tmp_path, monkeypatch):
    fill_disk(monkeypatch, range(1, 100))
    with pytest.raises(CheckpointError, match="bytes and 5 are free") as error:
        run(tmp_path, **{"train.save_every": 2})
    assert error.value.exit_code == 4
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6]
    assert checkpoints.restore(tmp_path)[1]["step"] == 0


# The threads of Orbax that failed say so once more when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_that_fails_in_the_background_is_tried_again_and_leaves_nothing_behind(tmp_path, capsys):
    limit = {4: 1, 5: None}
    soft, hard = storage_limit()
    system = toy.make_system()

    def stop(step):
        if step in limit:
            storage_limit(limit[step] if limit[step] is not None else soft)
        return False

    try:
        run(tmp_path, system=system, stop=stop, **{"train.log_every": 100, "train.eval_every": 100})
    finally:
        storage_limit(soft)
    assert "warning: " in capsys.readouterr().out
    assert checkpoints.list_steps(tmp_path) == [8, 12]
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
    assert hard == storage_limit()[1]


def storage_limit(size=None):
    """Sets the largest size of a file that this process may write; returns the limits before."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


def test_a_signal_during_an_evaluation_is_honoured_before_its_end_and_the_evaluation_is_made_up_for(
    whole, tmp_path
):
    data = toy.make_data()
    asked = []

    def evaluation(tier, batch_size):
        for request in data.evaluation(tier, batch_size):
            asked.append(1)
            yield request

    with pytest.raises(interruption.Interrupted, match="stopped at step 8 and saved"):
        run(tmp_path, data=data._replace(evaluation=evaluation), stop=lambda step: len(asked) == 5)
    assert len(asked) == 5
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6]
    assert_same_bits(run(tmp_path), whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))
    assert checkpoints.restore(tmp_path, 8)[1]["metrics"] == checkpoints.restore(whole[0], 8)[1]["metrics"]


def test_the_last_evaluation_is_made_up_for_too(whole, tmp_path):
    with pytest.raises(interruption.Interrupted, match="stopped at step 12"):
        run(tmp_path, stop=lambda step: step == 12)
    assert_same_bits(run(tmp_path), whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))
    assert (
        checkpoints.restore(tmp_path, "best")[1]["step"] == checkpoints.restore(whole[0], "best")[1]["step"]
    )


def test_a_second_signal_is_answered_and_the_third_acts(capfd):
    with pytest.raises(KeyboardInterrupt), interruption.watch_signals() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert stop(1)
        assert capfd.readouterr().err == "stopping: the run is being saved; a third signal ends it at once\n"
        signal.raise_signal(signal.SIGINT)


def test_one_of_several_processes_hands_the_first_signal_on_and_counts_those_after_the_agreed_step(
    monkeypatch, capfd
):
    sent, before = [], signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(interruption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        interruption.multihost_utils, "reached_preemption_sync_point", lambda asked: asked == 1
    )
    monkeypatch.setattr(interruption.os, "kill", lambda process, number: sent.append(number))
    with interruption.watch_signals() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert sent == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is before
        assert [stop(step) for step in (7, 0)] == [False, True]
        signal.raise_signal(signal.SIGTERM)
        assert sent == [signal.SIGTERM] and capfd.readouterr().err.startswith(
            "stopping: the run is being saved"
        )
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_from_the_start_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.watch_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop(1)
            signal.raise_signal(signal.SIGTERM)
            assert stop(2)
        with interruption.leave_on_signal("tested"):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_change_of_the_config_is_allowed_by_name_and_recorded(tmp_path, capsys):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, stop=lambda step: step == 5)
    with pytest.raises(ConfigError, match=r"b1 is 0\.9 there and 0\.8 here.*--allow-config-change optim\.b1"):
        run(tmp_path, **{"optim.b1": 0.8})
    with pytest.raises(ConfigError, match=r"config\.optim\.b2 is 0\.95 there and 0\.9 here"):
        run(tmp_path, allowed_changes=["optim.b1"], **{"optim.b1": 0.8, "optim.b2": 0.9})
    run(tmp_path, allowed_changes=["optim.b1"], **{"optim.b1": 0.8})
    assert "config.optim.b1 was 0.9 and is 0.8 from here on" in capsys.readouterr().out
    change = {"step": 5, "name": "optim.b1", "before": 0.9, "after": 0.8}
    assert checkpoints.restore(tmp_path)[1]["changes"] == [change]
    run(tmp_path, **{"optim.b1": 0.8})


def test_a_spike_of_the_loss_is_counted_and_the_counts_survive_a_resume():
    tally = Tally()
    for step in range(SPIKE_STEPS):
        tally.add(step, {"train/loss": 1.0 + step % 2, "clipped": False, "finite": True}, max_skipped=2)
    tally = Tally(json.loads(json.dumps(tally.to_dict())))
    for loss in (4.4, 9.0):
        tally.add(1, {"train/loss": loss, "clipped": False, "finite": True}, max_skipped=2)
    assert tally.take()["train/loss_spikes"] == 1


def test_programs_are_counted_and_none_is_compiled_after_the_first_evaluation(whole):
    counts = [line["time/compiled_programs"] for line in lines_of(whole[0])]
    assert counts[0] > 0 and counts[3:] == [0, 0, 0]
    assert compilation.ProgramCount().take() == {"time/compiled_programs": 0}


class Sizes:
    argument_size_in_bytes, output_size_in_bytes, temp_size_in_bytes = 4 * 10**9, 10**9, 6 * 10**9
    alias_size_in_bytes = 10**9

    def memory_analysis(self):
        return self


class Device:
    device_kind = "small"

    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return {"bytes_limit": self.limit} if self.limit else None


def test_a_step_that_needs_more_memory_than_the_device_has_is_refused_with_the_batch_and_both_sizes():
    assert memory.check_memory(Sizes(), Device(16e9), 8) == "a step needs 10.00 GB of 16.00 GB"
    assert memory.check_memory(Sizes(), Device(None), 8) == "a step needs 10.00 GB"
    with pytest.raises(
        ConfigError, match=r"batch_size = 8 needs 10\.00 GB and small has 8\.00 GB; lower config"
    ):
        memory.check_memory(Sizes(), Device(8e9), 8)


HANGS = """
import time
from polarjax.engine.watchdog import Watchdog
with Watchdog(0.3 / 60) as watchdog:
    watchdog.alive()
    time.sleep(20)
"""


def test_a_step_that_hangs_ends_the_process_with_the_stacks_of_its_threads(repository):
    command = [sys.executable, "-c", HANGS]
    done = subprocess.run(command, cwd=repository, env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Timeout (0:00:00.3" in done.stderr and "line 6 in <module>" in done.stderr


def test_the_watchdog_gives_more_time_for_a_compilation_and_rests_in_between(monkeypatch):
    armed = []
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", lambda s, **k: armed.append(s))
    with watchdog.Watchdog(2.0) as dog:
        dog.alive(long=True)
        dog.alive()
        dog.alive()
    assert armed == [1200.0, 120.0]
    watchdog.Watchdog(0.0).alive()
    assert len(armed) == 2
