import numpy as np
import pytest

from polarjax.core import ConfigError, DataError
from polarjax.data.segments import Cut, Sampler, scored_bins, trial_bounds, valid_starts
from polarjax.data.sessions import open_session

from .conftest import TRIAL_FRAMES, session_arrays


def sampler_of(*folders, burn_in=6, predicted=4, weights=None, seed=3):
    sessions = tuple(open_session(folder) for folder in folders)
    kept = tuple(np.ones(len(session.unit_ids), bool) for session in sessions)
    return Sampler(sessions, kept, Cut(burn_in, predicted), weights or (1.0,) * len(sessions), seed)


def starts_one_by_one(session, tier, cut):
    """The second formula: tries every frame."""
    found = []
    for start in range(len(session.trial) - cut.length + 1):
        frames = slice(start, start + cut.length)
        one_trial = len(set(session.trial[frames].tolist())) == 1
        scored = session.valid[start + cut.burn_in : start + cut.length].any()
        if one_trial and scored and session.tier[start] == tier:
            found.append(start)
    return found


@pytest.mark.parametrize(("burn_in", "predicted"), [(6, 4), (0, 1), (29, 1), (24, 5), (5, 60)])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_starts_are_those_of_the_definition(make_session, burn_in, predicted, tier):
    session = open_session(make_session(valid=np.random.default_rng(1).random((180, 3)) < 0.1))
    cut = Cut(burn_in, predicted)
    starts = valid_starts(session, tier, cut, scored_bins(session, np.ones(3, bool)))
    assert starts.tolist() == starts_one_by_one(session, tier, cut)


def test_an_epoch_covers_every_start_of_each_session_once_and_the_next_has_another_order(make_session):
    sampler = sampler_of(make_session("alpha"), make_session("beta", seed=1, units=5))
    orders = []
    for session, starts in enumerate(sampler.starts):
        count = len(starts)
        drawn = np.concatenate(
            [sampler.train(step, 8)["start"][session::2] for step in range(2 * count // 4 + 1)]
        )
        assert sorted(drawn[:count].tolist()) == sorted(starts.tolist())
        assert sorted(drawn[count : 2 * count].tolist()) == sorted(starts.tolist())
        assert drawn[:count].tolist() != drawn[count : 2 * count].tolist()
        orders.append(drawn[:20].tolist())
    assert orders[0] != orders[1]


def test_a_training_request_depends_on_seed_and_step_alone(make_session):
    folder = make_session()
    one, two, other = sampler_of(folder), sampler_of(folder), sampler_of(folder, seed=4)
    late = two.train(1000, 8)
    for step in range(3):
        one.train(step, 8)
    assert {name: values.tolist() for name, values in one.train(1000, 8).items()} == {
        name: values.tolist() for name, values in late.items()
    }
    assert other.train(1000, 8)["start"].tolist() != late["start"].tolist()


def test_segments_in_training_lie_in_one_trial(make_session):
    sampler = sampler_of(make_session())
    request = sampler.train(5, 16)
    trial = sampler.sessions[0].trial
    for start, stop in zip(request["start"], request["stop"], strict=True):
        assert start + sampler.cut.length <= stop
        assert set(trial[start:stop].tolist()) == {trial[start]}
    assert request["counted"].tolist() == np.ones((16, 4)).tolist()
    assert [values.dtype for values in request.values()] == [np.int32, np.int32, np.float32]


def test_session_weights_weigh_the_bins_of_a_session(make_session):
    sampler = sampler_of(make_session("alpha"), make_session("beta"), weights=(0.5, 1.5))
    assert sampler.train(0, 4)["counted"][:, 0].tolist() == [0.5, 1.5, 0.5, 1.5]


@pytest.mark.parametrize(("burn_in", "predicted"), [(6, 4), (6, 5), (0, 1), (29, 1), (20, 24), (0, 30)])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_evaluation_scores_every_valid_bin_with_enough_history_exactly_once(
    make_session, burn_in, predicted, tier
):
    sparse = np.random.default_rng(2).random((180, 3)) < 0.2
    sampler = sampler_of(
        make_session("alpha", valid=sparse),
        make_session("beta", seed=1),
        burn_in=burn_in,
        predicted=predicted,
    )
    times = [np.zeros(180), np.zeros(180)]
    for request in sampler.evaluation(tier, 4):
        assert len(request["start"]) == 4
        for example in range(4):
            session = sampler.sessions[example % 2]
            for place in np.flatnonzero(request["counted"][example]):
                frame = request["start"][example] + burn_in + place
                assert frame < request["stop"][example]
                assert session.trial[request["start"][example]] == session.trial[frame]
                times[example % 2][frame] += 1
    for session, scored in zip(sampler.sessions, times, strict=True):
        wanted = np.zeros(180)
        for first, end in trial_bounds(session):
            if session.tier[first] == tier:
                wanted[first + burn_in : end] = session.valid[first + burn_in : end].any(axis=1)
        np.testing.assert_array_equal(scored, wanted)


def test_where_a_session_has_no_segment_left_its_own_come_again_uncounted(make_session):
    short = session_arrays(trials=3)
    small = {name: short[name] for name in ("gaze", "spikes", "valid", "trial", "tier", "frames")}
    sampler = sampler_of(make_session("alpha"), make_session("beta", **small))
    requests = list(sampler.evaluation(0, 4))
    assert len({len(request["start"]) for request in requests}) == 1
    assert requests[-1]["counted"][0::2].sum() > 0
    assert requests[-1]["counted"][1::2].sum() == 0
    starts, counted = sampler.tiles(1, 0)
    seen = np.concatenate([request["start"][1::2] for request in requests])
    assert set(seen.tolist()) == set(starts.tolist())
    assert sum(request["counted"][1::2].sum() for request in requests) == counted.sum()


def test_evaluation_deals_out_the_segments_of_a_tier_always_alike(make_session):
    sampler = sampler_of(make_session("alpha"))
    starts = [
        np.concatenate([request["start"] for request in sampler.evaluation(0, rows)]) for rows in (2, 2, 4)
    ]
    np.testing.assert_array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts[0], starts[2][: len(starts[0])])
    assert np.any(np.diff(starts[0]) < 0)
    assert sorted(set(starts[0].tolist())) == sampler.tiles(0, 0)[0].tolist()


def test_a_tier_without_trials_gives_no_request(make_session):
    sampler = sampler_of(make_session(tier=np.zeros(180, np.uint8)))
    assert list(sampler.evaluation(2, 4)) == []


def test_windows_longer_than_every_trial_are_an_error_with_both_lengths(make_session):
    sampler = sampler_of(make_session(), burn_in=30, predicted=1)
    with pytest.raises(
        DataError,
        match=r"windows longer than every trial: session alpha .* of 30 frames, burn_in \+ predicted is 30 \+ 1 = 31",
    ):
        sampler.train(0, 4)


def test_an_empty_training_tier_says_what_removed_how_many_starts(make_session):
    sampler = sampler_of(make_session(valid=np.zeros((180, 3), bool)))
    with pytest.raises(
        DataError, match=r"(?s)0 segments of 10 frames .*42 starts removed: trials.*84 .*no valid"
    ):
        sampler.train(0, 4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_holds_as_many_segments_of_each_session(make_session, batch_size):
    sampler = sampler_of(make_session("alpha"), make_session("beta"))
    with pytest.raises(ConfigError, match=f"batch size {batch_size} is not a multiple of the 2 sessions"):
        sampler.train(0, batch_size)


def test_trials_end_where_the_next_begins(make_session):
    bounds = trial_bounds(open_session(make_session()))
    np.testing.assert_array_equal(bounds, [[t * TRIAL_FRAMES, (t + 1) * TRIAL_FRAMES] for t in range(6)])
