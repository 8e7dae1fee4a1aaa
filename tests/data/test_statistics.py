import json

import numpy as np
import pytest

from polarjax.data import statistics
from polarjax.data.sessions import open_session
from polarjax.data.statistics import mean_count, positions, session_statistics

SHAPE = (40, 48)
BLOCK = 8
BLOCKS = [(1, 4), (3, 1), (2, 3)]


@pytest.fixture
def localised(make_session):
    """Texture whose contrast changes from block to block; three units count that of one block each, one nothing."""
    random = np.random.default_rng(0)
    contrast = random.random((1800, SHAPE[0] // BLOCK, SHAPE[1] // BLOCK))
    texture = random.normal(0, 60, (1800, *SHAPE))
    frames = 127 + texture * contrast.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)
    rate = np.stack([*(4 * contrast[:, row, column] for row, column in BLOCKS), np.full(1800, 2.0)], axis=1)
    return make_session(
        units=4,
        frames=np.clip(frames, 0, 255).astype(np.uint8),
        spikes=random.poisson(rate).astype(np.uint8),
        valid=np.ones((1800, 1), bool),
        gaze=np.zeros((1800, 2), np.float32),
        trial=np.arange(1800, dtype=np.int32),
        tier=np.zeros(1800, np.uint8),
    )


def test_positions_are_where_counts_follow_contrast_with_x_right_and_y_up(localised):
    found = np.asarray(positions(open_session(localised)))
    for (row, column), place in zip(BLOCKS, found[:3], strict=True):
        middle = (BLOCK - 1) / 2
        right = column * BLOCK + middle - (SHAPE[1] - 1) / 2
        below = row * BLOCK + middle - (SHAPE[0] - 1) / 2
        np.testing.assert_allclose(place, [right / 10, -below / 10], atol=0.15)
    np.testing.assert_array_equal(found[3], [0, 0])


def test_positions_are_the_same_out_of_scenes(localised, make_session):
    cut = open_session(localised)
    arrays = {name: np.asarray(getattr(cut, name)) for name in ("spikes", "valid", "gaze", "trial", "tier")}
    window = {"size": list(SHAPE), "pixels_per_degree": 10.0}
    given = {"window": window}
    folder = make_session(
        "beta",
        units=4,
        kind="scenes",
        given=given,
        scenes=np.asarray(cut.movie[..., 0]),
        **arrays,
        frame_index=None,
    )
    np.testing.assert_allclose(positions(open_session(folder)), positions(cut), atol=1e-3)


def test_units_without_spikes_and_short_sessions_lie_in_the_centre(make_session):
    session = open_session(make_session(spikes=np.zeros((180, 3), np.uint8)))
    assert positions(session) == ((0.0, 0.0),) * 3
    valid = np.zeros((180, 3), bool)
    valid[20] = True
    assert positions(open_session(make_session("beta", valid=valid, tier=np.zeros(180, np.uint8)))) == (
        ((0.0, 0.0),) * 3
    )


def test_mean_counts_are_of_valid_training_bins_alone(make_session):
    session = open_session(make_session())
    used = session.valid & (session.tier == 0)[:, None]
    wanted = [session.spikes[used[:, unit], unit].mean() for unit in range(3)]
    np.testing.assert_allclose(mean_count(session), wanted, rtol=1e-6)


def test_statistics_are_cached_by_fingerprint_and_computed_again_for_another_window(
    make_session, tmp_path, monkeypatch
):
    session = open_session(make_session(kind="scenes"))
    cache = tmp_path / "cache"
    first = session_statistics(session, cache)
    stored = json.loads((cache / "statistics" / f"{session.fingerprint}.json").read_text())
    assert stored["mean_count"] == list(first.mean_count)
    computed = []
    monkeypatch.setattr(statistics, "positions", lambda opened: computed.append(opened) or first.position_deg)
    assert session_statistics(session, cache) == first
    assert computed == []
    (cache / "statistics" / f"{session.fingerprint}.json").write_text("{")
    assert session_statistics(session, cache) == first
    assert computed == [session]


def test_a_cache_that_cannot_be_written_is_not_used(make_session, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    session = open_session(make_session())
    assert len(session_statistics(session, tmp_path / "cache").mean_count) == 3
