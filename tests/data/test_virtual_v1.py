import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import metrics
from polarjax.core import DataError
from polarjax.data import retina, scenes, virtual_v1
from polarjax.data.sessions import open_session
from polarjax.data.virtual_v1 import ensure_virtual_v1

MINUTES = 0.75


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return ensure_virtual_v1(0, MINUTES, tmp_path_factory.mktemp("virtual"))


def contents(folders):
    return {f"{f.name}/{file.name}": file.read_bytes() for f in folders for file in sorted(f.iterdir())}


def test_two_sessions_of_different_numbers_of_units_open_without_error(folders):
    sessions = [open_session(folder) for folder in folders]
    assert [len(session.unit_ids) for session in sessions] == [40, 30]
    assert {unit.split("-")[0] for session in sessions for unit in session.unit_ids} == {"simple", "complex"}
    for session in sessions:
        assert (
            session.rate_hz == 120
            and session.frame_shape == (51, 51, 1)
            and session.window_pixels_per_degree == 37
        )
        assert abs(len(session.spikes) - MINUTES * 60 * 120) < 10
        assert session.notes == ()


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(folders, tmp_path):
    first, again = contents(folders), contents(ensure_virtual_v1(0, MINUTES, tmp_path))
    assert first == again
    other = contents(ensure_virtual_v1(1, MINUTES, tmp_path))
    same = [name for name in first if first[name] == other[name]]
    assert {name.split("/")[1] for name in same} <= {"scenes.npy", "trial.npy", "valid.npy"}


def test_the_two_sessions_differ_in_gaze_and_units(folders):
    first, second = (open_session(folder) for folder in folders)
    assert np.abs(np.asarray(first.gaze) - np.asarray(second.gaze)).max() > 0.5
    truth = [json.loads((folder / "units.json").read_text()) for folder in folders]
    assert truth[0]["units"][0]["orientation_deg"] != truth[1]["units"][0]["orientation_deg"]


def test_tiers_are_whole_trials_and_test_photographs_are_never_shown_in_another_tier(folders):
    for folder in folders:
        session = open_session(folder)
        photographs = json.loads((folder / "units.json").read_text())["photographs"]
        shown = [{photographs[i] for i in session.frame_index[session.tier == tier]} for tier in range(3)]
        assert all(shown) and not (shown[0] & shown[1] or shown[0] & shown[2] or shown[1] & shown[2])
        share = np.bincount(session.tier, minlength=3) / len(session.tier)
        assert share[0] > 0.5 and share[1] > 0.04 and share[2] > 0.1
        for trial in np.unique(session.trial):
            rows = session.trial == trial
            assert len(np.unique(session.tier[rows])) == 1 and len(np.unique(session.frame_index[rows])) == 1


def test_full_length_shares_a_tenth_of_the_trials_each_way_and_shows_every_training_scene():
    tiers = scenes.load_scenes().tier
    scene, tier, repeated = virtual_v1.assign_scenes(np.random.default_rng(0), tiers, 180)
    assert np.bincount(tier).tolist() == [144, 14, 22]
    assert np.all(tiers[scene] == tier)
    assert set(scene[tier == 0]) == set(np.flatnonzero(tiers == 0))
    assert (repeated >= 0).sum() == 11
    assert not set(scene[repeated >= 0]) & set(scene[(repeated < 0) & (tier == 2)])


@pytest.mark.parametrize("n_trials", [10, 180, 420, 450, 720, 3000])  # 720: 12 minutes of recorded gaze
def test_any_number_of_trials_is_of_scenes_of_their_own_tier_and_repeats_at_most_half_of_those_of_the_test(
    n_trials,
):
    tiers = scenes.load_scenes().tier
    scene, tier, repeated = virtual_v1.assign_scenes(np.random.default_rng(0), tiers, n_trials)
    assert len(scene) == n_trials and np.all(tiers[scene] == tier) and set(tier) == {0, 1, 2}
    again, once = set(scene[repeated >= 0]), set(scene[(repeated < 0) & (tier == 2)])
    assert again and once and not again & once
    assert len(again) <= np.count_nonzero(tiers == 2) // 2


def test_repeats_show_the_same_image_in_the_test_tier_under_new_eye_movements(folders):
    for folder in folders:
        session = open_session(folder)
        repeated = session.repeat >= 0
        assert repeated.any() and np.all(session.tier[repeated] == 2)
        for value in np.unique(session.repeat[repeated]):
            rows = np.flatnonzero(session.repeat == value)
            assert len(rows) >= 2 and len(np.unique(session.frame_index[rows])) == 1
            assert len(np.unique(session.trial[rows])) == len(rows)
            assert len(np.unique(session.gaze[rows], axis=0)) == len(rows)
        assert np.any((session.tier == 2) & ~repeated)


def test_mean_rates_are_5_to_30_spikes_per_second_and_counts_follow_the_true_rate(folders):
    for folder in folders:
        session = open_session(folder)
        training = np.asarray(session.tier) == 0
        mean = session.true_rate[training].mean(0) * 120
        assert np.all((mean > 4.9) & (mean < 30.1))
        expected, counted = session.true_rate.sum(0, dtype=float), session.spikes.sum(0, dtype=float)
        assert np.all(np.abs(counted - expected) < 4.5 * np.sqrt(expected))
        assert session.true_rate.max() * 120 < 500


def test_the_true_rate_explains_every_unit_far_better_than_its_mean(folders):
    for folder in folders:
        session = open_session(folder)
        test = np.asarray(session.tier) == 2
        rate = np.asarray(session.true_rate[test], float)
        mean = rate.mean(0)
        expected = ((rate * np.log(rate / mean) - rate + mean).sum(0)) / rate.sum(0) / np.log(2)
        assert 0.3 < np.median(expected) < 1.3
        assert expected.min() > 0.1
        spikes = np.asarray(session.spikes[test])
        measured = metrics.bits_per_spike(rate, spikes, np.ones(spikes.shape, bool))
        assert np.median(measured) == pytest.approx(np.median(expected), rel=0.25)


def test_windows_equal_those_that_the_device_renders_also_beyond_the_border():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (385, 385), np.uint8)
    gaze = np.concatenate([rng.uniform(-4.5, 4.5, (20, 2)), [[5.2, -5.1], [0.0, 0.0], [9.0, 9.0]]]).astype(
        np.float32
    )
    geometry = retina.WindowGeometry((385, 385), (51, 51), 37.0, 37.0)
    device = retina.render_scenes(
        jnp.asarray(image[None, ..., None]), jnp.zeros(len(gaze), jnp.int32), jnp.asarray(gaze), geometry
    )
    host = (virtual_v1.sample_windows(image, gaze) - 127) / 255
    np.testing.assert_allclose(host, np.asarray(device)[..., 0], atol=1e-4)
    np.testing.assert_array_equal(host[21] * 255 + 127, image[167:218, 167:218])
    assert np.all(host[22] == 0)


def test_looking_right_and_up_moves_the_window_right_and_up_in_the_scene():
    image = np.zeros((385, 385), np.uint8)
    image[192 - 37, 192 + 37] = 255
    window = virtual_v1.sample_windows(image, np.array([[1.0, 1.0]], np.float32))[0]
    assert window[25, 25] == 255


def test_a_second_call_reads_the_cache(folders):
    before = (folders[0] / "spikes.npy").stat().st_mtime_ns
    started = time.perf_counter()
    again = ensure_virtual_v1(0, MINUTES, folders[0].parents[2])
    assert again == folders and (folders[0] / "spikes.npy").stat().st_mtime_ns == before
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("damage", ["truncate", "remove", "units"])
def test_a_damaged_cache_is_rebuilt_with_the_same_bytes(folders, damage):
    whole = contents(folders)
    file = folders[1] / ("units.json" if damage == "units" else "gaze.npy")
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(whole[f"virtual-b/{file.name}"][:-100])
    assert contents(ensure_virtual_v1(0, MINUTES, folders[0].parents[2])) == whole
    assert [path.name for path in folders[0].parents[1].iterdir()] == [folders[0].parent.name]


def test_an_unwritable_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the virtual V1 to .*config\.data\.virtual\.cache"):
        ensure_virtual_v1(0, MINUTES, tmp_path / "file")


def test_the_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert virtual_v1.default_cache() == tmp_path / "polarjax"
