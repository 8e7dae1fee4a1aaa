"""Early stopping: a run whose evaluations get no better ends as one that is finished, wherever it was interrupted."""

import math

import numpy as np
import pytest

from polarjax import inspect
from polarjax.core import ConfigError
from polarjax.engine import checkpoints, interruption
from polarjax.engine.patience import Patience
from tests.engine import toy
from tests.engine.runs import assert_same_bits, kill, lines_of, run, without_times

BITS = "eval/bits_per_spike"
# Evaluated at steps 4, 8 and 12 of 20: better once, then never again.
OPTIONS = {"train.num_steps": 20, "train.patience": 2, "train.save_every": 6, "train.log_every": 5}


def count(values, limit=2, saved=None):
    patience = Patience(BITS, limit, saved)
    for step, value in enumerate(values, start=1):
        patience.add(step, {BITS: value})
    return patience


def settling():
    """The toy system, whose evaluation knows its step: 1 bit at step 4, less at every later one."""
    system = toy.make_system()

    def eval_sums(state, batch):
        return {"step": state.step.astype(np.float32), "batches": np.ones((), np.float32)}

    def eval_metrics(sums):
        return {"bits_per_spike": float(4.0 / (sums["step"] / sums["batches"]))}

    return system._replace(eval_sums=eval_sums, eval_metrics=eval_metrics)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that its patience ended at step 12: its folder, its state, what it printed is not kept."""
    workdir = tmp_path_factory.mktemp("stopped")
    return workdir, run(workdir, system=settling(), **OPTIONS)


@pytest.mark.parametrize(
    ("values", "since", "ended"),
    [
        ([1.0, 2.0, 3.0], 0, False),
        ([1.0, 1.0, 1.0], 2, True),
        ([2.0, 1.0, 3.0, 2.0], 1, False),
        ([math.nan, math.nan], 2, True),
        ([1.0, math.nan, 0.5], 2, True),
        ([math.nan, -1.0], 0, False),
    ],
)
def test_evaluations_since_the_best_are_counted(values, since, ended):
    patience = count(values)
    assert patience.since == since
    assert bool(patience.reason) is ended
    assert count(values, limit=0).reason == ""
    half = count(values[:1]).to_dict()
    assert count(values[1:], saved=half).since == since


def test_a_run_without_patience_counts_whatever_its_evaluation_gives():
    patience = Patience(BITS, 0)
    patience.add(4, {})
    assert patience.since == 1
    with pytest.raises(ConfigError, match=r"patience is 2, .* 'eval/bits_per_spike'; it gives eval/bits"):
        Patience(BITS, 2).add(4, {"eval/bits": 1.0})


def test_a_run_ends_where_its_patience_does_with_all_that_belongs_to_an_end(stopped):
    workdir, state = stopped
    assert int(state.step) == 12
    assert checkpoints.list_steps(workdir)[-1] == 12
    saved, meta = checkpoints.restore(workdir)
    assert_same_bits(saved.params, state.params)
    assert meta["ended"].startswith("no better eval/bits_per_spike in 2 evaluations")
    assert meta["ended"].endswith("the best is 1 at step 4")
    last = lines_of(workdir)[-1]
    assert last["step"] == 12
    assert {BITS, "train/loss"} <= set(last)


def test_the_same_command_on_a_run_that_has_ended_does_nothing(stopped, capsys):
    workdir, state = stopped
    before = (workdir / "metrics.jsonl").read_bytes()
    assert_same_bits(run(workdir, system=settling(), **OPTIONS), state)
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert "the run has ended: no better eval/bits_per_spike" in capsys.readouterr().out


@pytest.mark.parametrize("at", [3, 7, 8, 11, 12])
def test_a_run_that_was_interrupted_ends_at_the_same_step_with_the_same_bits(stopped, tmp_path, at):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, system=settling(), stop=lambda step: step == at, **OPTIONS)
    assert_same_bits(run(tmp_path, system=settling(), **OPTIONS), stopped[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(stopped[0]))


@pytest.mark.parametrize("at", [5, 8, 11])
def test_a_run_that_was_killed_ends_at_the_same_step_with_the_same_bits(stopped, tmp_path, at):
    kill(tmp_path, at=at, system=settling(), **OPTIONS)
    assert_same_bits(run(tmp_path, system=settling(), **OPTIONS), stopped[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(stopped[0]))


def test_more_patience_continues_a_run_that_has_ended(tmp_path):
    run(tmp_path, system=settling(), **OPTIONS)
    more = {**OPTIONS, "train.patience": 3}
    with pytest.raises(ConfigError, match=r"train\.patience is 2 there and 3 here"):
        run(tmp_path, system=settling(), **more)
    state = run(tmp_path, system=settling(), allowed_changes=("train.patience",), **more)
    assert int(state.step) == 16


def test_the_history_of_a_run_says_why_it_has_ended(stopped):
    lines = list(inspect.describe(inspect.look_into(stopped[0])))
    assert any(line.startswith("  ended at step 12: no better eval/bits_per_spike in 2") for line in lines)
