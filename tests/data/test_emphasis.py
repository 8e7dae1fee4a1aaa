"""Segments drawn by their contrast, fewer with every step: frequencies, the end, and that nothing is remembered."""

import numpy as np
import pytest

from polarjax import data
from polarjax.data.emphasis import Emphasis
from polarjax.data.segments import Cut, Sampler
from polarjax.data.sessions import open_session

ANNEAL = 50
KEYS = ("start", "stop", "counted")


def contrasts(sampler_session, seed):
    return np.random.default_rng(seed).gamma(1.0, 0.2, len(sampler_session.trial)).astype(np.float32)


@pytest.fixture
def make_sampler(make_session):
    """make_sampler(weight) -> of two sessions; weight None for one without emphasis."""
    sessions = tuple(
        open_session(make_session(name, seed=seed)) for seed, name in enumerate(("alpha", "beta"))
    )

    def make(weight):
        given = tuple(contrasts(session, seed) for seed, session in enumerate(sessions))
        emphasis = None if weight is None else Emphasis(weight, ANNEAL, given)
        kept = tuple(np.ones(3, bool) for _ in sessions)
        return Sampler(sessions, kept, Cut(6, 4), (1.0, 1.0), 3, emphasis)

    return make


def expected_chances(sampler, session, weight):
    """The second formula: the contrast of every segment frame by frame, mixed with the uniform chance."""
    contrast = sampler.emphasis.contrast[session].astype(np.float64)
    rms = np.asarray(
        [np.sqrt(np.mean(contrast[start : start + 10] ** 2)) for start in sampler.starts[session]]
    )
    return (1 - weight) / len(rms) + weight * rms / rms.sum()


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_segments_of_the_first_step_come_as_often_as_their_contrast_says(make_sampler, weight):
    sampler = make_sampler(weight)
    many = 200_000
    for session, starts in enumerate(sampler.starts):
        drawn = sampler.train(0, 2 * many)["start"][session::2]
        counts = np.asarray([(drawn == start).sum() for start in starts])
        chances = expected_chances(sampler, session, weight)
        assert counts.sum() == many
        deviation = (counts - many * chances) / np.sqrt(many * chances)
        assert np.abs(deviation).max() < 5
        assert counts.max() > 1.2 * counts.min()


def test_half_way_half_of_the_weight_is_left_and_at_the_end_batches_are_those_without_emphasis(make_sampler):
    sampler, plain = make_sampler(1.0), make_sampler(None)
    assert [sampler.emphasis.share(step) for step in (0, 25, 50, 1000)] == [1.0, 0.5, 0.0, 0.0]
    half, uniform = sampler.train(25, 20_000), plain.train(25, 20_000)
    same = np.mean(half["start"] == uniform["start"])
    assert abs(same - 0.5) < 0.03
    for step in (ANNEAL, ANNEAL + 1, 1000):
        ours, theirs = sampler.train(step, 8), plain.train(step, 8)
        for key in KEYS:
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_after_the_annealing_every_start_of_an_epoch_comes_once(make_sampler):
    sampler = make_sampler(0.8)
    count = len(sampler.starts[0])
    first = -(-ANNEAL * 4 // count) * count  # where the first epoch begins whose steps are all uniform
    places = np.arange(first, first + count)
    drawn = [sampler.train(place // 4, 8)["start"][::2][place % 4] for place in places.tolist()]
    assert sorted(drawn) == sampler.starts[0].tolist()


def test_a_request_depends_on_seed_and_step_alone_and_all_of_it_lies_in_the_training_tier(make_sampler):
    one, two = make_sampler(1.0), make_sampler(1.0)
    late = two.train(7, 16)
    for step in range(7):
        one.train(step, 16)
    request = one.train(7, 16)
    for key in KEYS:
        np.testing.assert_array_equal(request[key], late[key])
    assert request["start"].dtype == np.int32
    for session in range(2):
        assert set(request["start"][session::2].tolist()) <= set(one.starts[session].tolist())
    assert one.train(8, 16)["start"].tolist() != late["start"].tolist()


def test_a_session_without_any_contrast_is_drawn_uniformly():
    emphasis = Emphasis(1.0, ANNEAL, (np.zeros(20, np.float32),))
    np.testing.assert_allclose(emphasis.cumulative(0, np.arange(10), 5), np.arange(1, 11) / 10)


@pytest.mark.parametrize("kinds", [("frames", "scenes")])
def test_streamed_batches_are_the_resident_ones_and_those_with_contrast_come_first(
    make_session, section, kinds
):
    folders = [make_session(kind, kind=kind, seed=seed) for seed, kind in enumerate(kinds)]
    changes = {"contrast_weight": 1.0, "contrast_anneal": 3}
    resident = data.build(section(folders, **changes))
    stream = data.build(section(folders, storage="streamed", **changes))
    plain = data.build(section(folders))
    try:
        for step in range(5):
            request, read = resident.train(step), stream.train(step)
            ours, theirs = (
                built.fetch(built.resident, rows) for built, rows in ((resident, request), (stream, read))
            )
            for values, copies in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(values, copies)
            same = request["start"].tolist() == plain.train(step)["start"].tolist()
            assert same is (step >= 3)
    finally:
        stream.close()
