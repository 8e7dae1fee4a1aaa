"""Training on a share of the trials: which ones, and that nothing is learned from the counts of the others."""

import jax
import numpy as np
import pytest

from polarjax import data
from polarjax.core import DataError
from polarjax.data.few_trials import keep_trials, left_out_trials
from polarjax.data.sessions import open_session
from polarjax.data.statistics import session_statistics

from .conftest import TRIAL_FRAMES, session_arrays

TRIALS = 42  # of which 40 are for training


@pytest.fixture
def make_long(make_session):
    """make_long(name, **arrays) -> folder of a session of 42 trials."""

    def make(name="alpha", **changes):
        arrays = session_arrays(trials=TRIALS, fraction_valid=1.0)
        return make_session(name, **{**arrays, **changes})

    return make


def chosen(session, fraction, seed=0):
    kept = keep_trials(session, fraction, seed)
    return set(range(TRIALS - 2)) - set(left_out_trials(kept).tolist())


@pytest.mark.parametrize(
    ("fraction", "number"), [(1e-6, 1), (0.02, 1), (0.05, 2), (0.5, 20), (0.999, 40), (1.0, 40)]
)
def test_the_share_of_training_trials_is_kept_and_at_least_one(make_long, fraction, number):
    assert len(chosen(open_session(make_long()), fraction)) == number


def test_the_trials_of_a_smaller_share_are_among_those_of_a_larger_one(make_long):
    session = open_session(make_long())
    sets = [chosen(session, fraction) for fraction in (0.02, 0.05, 0.1, 0.5, 0.9)]
    assert all(few < many for few, many in zip(sets[:-1], sets[1:], strict=True))


def test_the_choice_is_that_of_the_seed_and_differs_between_sessions(make_long):
    session, other = open_session(make_long()), open_session(make_long("beta"))
    assert chosen(session, 0.2) == chosen(session, 0.2)
    assert len({frozenset(chosen(session, 0.2, seed)) for seed in range(4)}) == 4
    assert chosen(session, 0.2) != chosen(other, 0.2)


def test_a_share_of_one_returns_the_session_itself_and_so_does_one_without_spikes(make_long):
    session = open_session(make_long())
    assert keep_trials(session, 1.0, 0) is session
    gaze_alone = open_session(session.folder, ignore_spikes=True)
    assert keep_trials(gaze_alone, 0.1, 0) is gaze_alone


def test_training_draws_from_the_kept_trials_alone_and_from_all_of_each(make_long, section):
    built = data.build(section([make_long()], spike_fraction=0.05))
    kept = chosen(built.sessions[0], 1.0) - set(left_out_trials(built.sessions[0]).tolist())
    starts = np.concatenate([built.train(step)["start"] for step in range(12)])
    possible = [trial * TRIAL_FRAMES + place for trial in kept for place in range(TRIAL_FRAMES - 9)]
    assert len(kept) == 2 and set(starts.tolist()) == set(possible)
    assert "2 of 40 training trials are used" in built.sessions[0].notes[-1]
    scored = [request["start"][request["counted"].any(axis=1)] for request in built.evaluation(0, 4)]
    assert set((np.concatenate(scored) // TRIAL_FRAMES).tolist()) == kept


@pytest.mark.parametrize("tier", [1, 2])
def test_validation_and_test_are_those_of_all_trials(make_long, section, tier):
    folder = make_long()
    some, every = (data.build(section([folder], spike_fraction=share)) for share in (0.05, 1.0))
    pairs = list(zip(some.evaluation(tier, 4), every.evaluation(tier, 4), strict=True))
    assert len(pairs) > 0
    for ours, theirs in pairs:
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name])


def test_nothing_is_learned_from_the_counts_of_the_trials_that_are_left_out(
    make_long, make_session, section, tmp_path
):
    first = make_long()
    config = section([first], spike_fraction=0.1, drop_silent=True)
    built = data.build(config)
    lost = np.isin(session_arrays(trials=TRIALS)["trial"], left_out_trials(built.sessions[0]))
    spikes = session_arrays(trials=TRIALS, fraction_valid=1.0)["spikes"]
    spikes[~lost, 2] = 0  # a unit that is heard in the lost trials alone
    spikes[lost] += 3
    quiet, loud = spikes.copy(), spikes
    quiet[lost] = 0
    infos, batches = [], []
    for place, counts in (("quiet", quiet), ("loud", loud)):
        folder = make_long(place, spikes=counts, given={"name": "alpha"})
        other = data.build({**config, "sessions": str(folder)})
        infos.append(other.info.sessions[0])
        batches.append([jax.device_get(other.fetch(other.resident, other.train(step))) for step in range(2)])
        assert other.sessions[0].silent_units == (f"{place}-2",)
    assert infos[0].mean_count == infos[1].mean_count and infos[0].position_deg == infos[1].position_deg
    assert infos[0].mean_count[2] == 0 < infos[0].mean_count[0] < 3
    for ours, theirs in zip(*batches, strict=True):
        assert not ours.valid[..., 2].any() and ours.valid[..., 0].all()
        for values, copies in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(values, copies)


def test_a_unit_heard_only_in_left_out_trials_is_told(make_long):
    arrays = session_arrays(trials=TRIALS, fraction_valid=1.0)
    kept = np.isin(arrays["trial"], [*chosen(open_session(make_long()), 0.1), TRIALS - 2, TRIALS - 1])
    arrays["spikes"][kept, 1] = 0
    session = keep_trials(
        open_session(make_long("b", spikes=arrays["spikes"], given={"name": "alpha"})), 0.1, 0
    )
    assert session.silent_units == ("b-1",)
    assert "1 of 3 units have no spike in them or in the other tiers" in session.notes[-1]


def test_cached_statistics_of_one_choice_are_not_those_of_another(make_long, tmp_path):
    session = open_session(make_long())
    found = {}
    for _ in range(2):
        for fraction, seed in ((1.0, 0), (0.1, 0), (0.1, 1), (0.2, 0)):
            some = keep_trials(session, fraction, seed)
            statistics = session_statistics(some, tmp_path / "cache")
            used = np.asarray(some.tier) == 0
            np.testing.assert_allclose(statistics.mean_count, session.spikes[used].mean(axis=0), rtol=1e-6)
            assert found.setdefault((fraction, seed), statistics) == statistics
    assert len({statistics.mean_count for statistics in found.values()}) == 4
    names = {file.name for file in (tmp_path / "cache" / "statistics").iterdir()}
    assert len(names) == 4 and f"{session.fingerprint}.json" in names


def test_kept_trials_without_a_segment_are_told_from_those_that_are_left_out(make_long, section):
    arrays = session_arrays(trials=TRIALS, fraction_valid=1.0)
    kept = np.isin(arrays["trial"], list(chosen(open_session(make_long()), 0.05, seed=3)))
    folder = make_long("b", valid=~kept[:, None], given={"name": "alpha"})
    with pytest.raises(
        DataError, match=r"(?s)798 starts removed: trials left out .*spike_fraction\n +42 .*no valid"
    ):
        data.build(section([folder], spike_fraction=0.05))
