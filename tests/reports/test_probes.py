"""Linear probes: they find what is there, find nothing where nothing is, and never see a tested segment."""

import jax
import numpy as np
import pytest

from polarjax.reports import probes, self_supervision

from . import tiny_jepa


def made_segments(number, informative, seed=0):
    """Returns segments of one session whose displacement is in a line of their features, or in none."""
    generator = np.random.default_rng(seed)
    moved = generator.normal(0, 0.2, (number, 2))
    hidden = moved @ np.random.default_rng(99).normal(size=(2, 40)) if informative else 0.0
    features = {"code": 5 + hidden + 0.01 * generator.normal(size=(number, 40))}
    targets = {"gaze_dx": moved[:, :1], "gaze_dy": moved[:, 1:] + 3.0}
    return probes.Segments(features, targets, np.zeros(number, int), 10 * np.arange(number))


def scored(informative):
    training, tested = made_segments(400, informative), made_segments(200, informative, seed=1)
    fitted, held = probes.hold_out(training, 10)
    return probes.score_probes(training.rows(fitted), training.rows(held), tested)


def test_a_code_that_contains_the_displacement_explains_it():
    scores = scored(informative=True)
    assert set(scores) == {("code", "gaze_dx"), ("code", "gaze_dy")}
    assert min(scores.values()) > 0.98


def test_a_code_that_does_not_contain_the_displacement_explains_nothing():
    for value in scored(informative=False).values():
        assert -0.05 < value < 0.05


def test_a_code_that_is_one_point_explains_nothing():
    flat = made_segments(100, informative=True)
    flat = flat._replace(features={"code": np.ones((100, 40))})
    rows = np.arange(100)
    scores = probes.score_probes(flat.rows(rows[:60]), flat.rows(rows[60:80]), flat.rows(rows[80:]))
    assert scores["code", "gaze_dx"] == pytest.approx(0, abs=0.1)


def test_held_out_segments_begin_after_the_last_frame_that_is_fitted_and_duplicates_are_dropped():
    start = np.random.default_rng(0).integers(0, 900, 200)
    session = np.arange(200) % 2
    nothing = {"code": np.zeros((200, 1))}
    fitted, held = probes.hold_out(probes.Segments(nothing, nothing, session, start), 48)
    for index in (0, 1):
        first, second = (start[rows[session[rows] == index]] for rows in (fitted, held))
        assert second.min() >= first.max() + 48
        assert len(np.unique(first)) == len(first)
        assert 0.05 * len(first) < len(second) < 0.3 * len(first)


@pytest.fixture(scope="module")
def probed():
    """What is found of a run, and every request that was read."""
    seen = []
    data = tiny_jepa.make_data()
    fetch = data.fetch
    run, system = tiny_jepa.make_run(tiny_jepa.make_config(), data)
    data = data._replace(resident=jax.tree.map(jax.numpy.asarray, data.resident))

    def watched(resident, request):
        jax.debug.callback(lambda start: seen.append(np.asarray(start).tolist()), request["start"])
        return fetch(resident, request)

    states = self_supervision.states_of(run, system, data)
    objective = self_supervision.objective_of(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "FITTED", 40)
        found = probes.probe_run(objective, states, data._replace(fetch=watched), run.config, 2)
        jax.effects_barrier()
        training = probes.probe_run(objective, states, data, run.config, 0)
    return found, training, seen


def test_no_tested_segment_is_fitted_and_none_is_scored_that_only_fills_a_batch(probed):
    found, training, seen = probed
    assert training is None
    assert found["segments"]["tested"] == 8
    starts = [start for request in seen for start in request]
    tested = set(tiny_jepa.TESTED.tolist())
    assert found["segments"]["fitted"] + found["segments"]["held_out"] <= 40
    assert (
        sum(tested.issuperset(request) for request in seen) == 2 * 3
    )  # four of the twelve segments do not count
    assert set(starts) <= tested | set(tiny_jepa.TRAINING.tolist())
    by_kind = [tested.issuperset(request) for request in seen]
    assert by_kind == sorted(by_kind)
    assert not any(set(request) & tested for request, kind in zip(seen, by_kind, strict=True) if not kind)


def test_every_probe_has_the_untrained_core_beside_it(probed):
    found = probed[0]
    assert found["delta_frames"] == 2
    assert set(found["r2"]) == {"code", "summaries"}
    for targets in found["r2"].values():
        assert set(targets) == {"gaze_dx", "gaze_dy", "scene"}
        assert all(set(scores) == {"trained", "untrained"} for scores in targets.values())
    values = found["r2"]["code"]["scene"]
    assert values["trained"] != values["untrained"]
    assert max(values.values()) <= 1
