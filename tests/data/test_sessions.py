import hashlib
import json

import numpy as np
import pytest

from polarjax.core import DataError
from polarjax.data.sessions import find_sessions, open_session, write_session

from .conftest import TRIAL_FRAMES, fields, session_arrays


def change_json(folder, **changes):
    path = folder / "session.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        content.pop(name) if value is None else content.update({name: value})
    path.write_text(json.dumps(content))


def replace_array(folder, name, values):
    """Writes an array past write_session, with its digest, as another program would."""
    np.save(folder / f"{name}.npy", values)
    content = json.loads((folder / "session.json").read_text())
    content["sha256"][f"{name}.npy"] = hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest()
    (folder / "session.json").write_text(json.dumps(content))


def test_a_session_opens_as_it_was_written_and_is_memory_mapped(make_session):
    arrays = session_arrays()
    session = open_session(make_session())
    for name in ("gaze", "spikes", "valid", "trial", "tier"):
        np.testing.assert_array_equal(getattr(session, name), arrays[name])
        assert isinstance(getattr(session, name), np.memmap)
    np.testing.assert_array_equal(session.movie[..., 0], arrays["frames"])
    np.testing.assert_array_equal(session.frame_index, np.arange(len(arrays["trial"])))
    assert session.unit_ids == ("alpha-0", "alpha-1", "alpha-2")
    assert (session.frame_shape, session.rate_hz, session.window) == ((9, 7, 1), 120.0, None)
    assert (session.repeat, session.true_rate, session.silent_units, session.notes) == (None, None, (), ())


def test_colour_scenes_repeats_and_true_rates_are_kept(make_session):
    frames = len(session_arrays()["trial"])
    rate = np.full((frames, 3), 0.25, np.float32)
    repeat = np.full(frames, -1, np.int32)
    scenes = np.zeros((4, 41, 53, 3), np.uint8)
    session = open_session(make_session(kind="scenes", scenes=scenes, true_rate=rate, repeat=repeat))
    assert session.frame_shape == (9, 7, 3)
    np.testing.assert_array_equal(session.true_rate, rate)
    np.testing.assert_array_equal(session.repeat, repeat)


def test_wider_types_are_stored_narrower_where_nothing_is_lost(make_session):
    arrays = session_arrays()
    session = open_session(
        make_session(gaze=arrays["gaze"].astype(np.float64), trial=arrays["trial"].astype(np.int64))
    )
    assert (session.gaze.dtype, session.trial.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trial", 2**40, r"trial.npy: value 1099511627776 at \[5\] does not fit int32"),
        ("gaze", 1e300, r"gaze.npy: value 1e\+300 at \[5, 0\] does not fit float32"),
    ],
)
def test_values_that_the_stored_type_cannot_hold_are_refused(make_session, name, value, message):
    values = session_arrays()[name].astype(np.int64 if name == "trial" else np.float64)
    values[(5, 0)[: values.ndim]] = value
    with pytest.raises(DataError, match=message):
        make_session(**{name: values})


def test_an_array_of_unknown_name_is_refused(make_session):
    with pytest.raises(DataError, match="array 'robs' has no place in a session; allowed are frames"):
        make_session(robs=np.zeros(3))


def test_a_session_that_is_refused_leaves_nothing_behind(make_session, tmp_path):
    with pytest.raises(DataError, match="tier"):
        make_session(tier=np.full(len(session_arrays()["tier"]), 7, np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_not_overwritten(make_session):
    folder = make_session()
    with pytest.raises(DataError, match="exists and is not empty"):
        write_session(folder, arrays=session_arrays(), **fields())
    assert open_session(folder).name == "alpha"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="session folder .*nowhere does not exist"):
        open_session(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["gaze", "spikes", "valid", "trial", "tier"])
def test_a_missing_array_is_named(make_session, name):
    folder = make_session()
    (folder / f"{name}.npy").unlink()
    with pytest.raises(DataError, match=rf"session alpha: {name}.npy: the file is missing"):
        open_session(folder)


def test_a_session_without_any_movie_or_with_two_is_refused(make_session):
    with pytest.raises(DataError, match=r"expected frames.npy or scenes.npy, found neither"):
        make_session(frames=None)
    with pytest.raises(DataError, match="found frames and scenes"):
        make_session(scenes=np.zeros((4, 41, 53), np.uint8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format_version is 99, expected 1"),
        ({"gaze_unit": "px"}, "gaze_unit is 'px', expected 'deg'"),
        ({"count_unit": "Hz"}, "count_unit is 'Hz', expected 'spikes/bin'"),
        ({"tiers": {"0": "test"}}, "tiers is"),
        ({"rate_hz": 0}, "rate_hz is 0, expected a number > 0"),
        ({"rate_hz": "120"}, "rate_hz is '120'"),
        ({"pixels_per_degree": None}, "lacks pixels_per_degree"),
        ({"name": "../x"}, r"name is '../x'; allowed are letters"),
        ({"name": "/abs"}, "name is '/abs'"),
        ({"name": "a" * 300}, "at most 100 characters"),
        ({"unit_ids": ["a", "b", "a"]}, "unit_ids holds a more than once"),
        ({"unit_ids": []}, r"unit_ids is \[\]"),
        ({"unit_ids": ["a"]}, r"spikes.npy: has 3 columns, session.json lists 1 unit_ids"),
        ({"sha256": {}}, r"expected frames.npy or scenes.npy|sha256 has no entry for"),
        ({"subject": 3}, "subject is 3, expected a str"),
        ({"window": {"size": [3, 3], "pixels_per_degree": 1}}, "window is given, but frames.npy holds"),
    ],
)
def test_a_wrong_field_of_session_json_is_named_with_its_value(make_session, changes, message):
    folder = make_session()
    change_json(folder, **changes)
    with pytest.raises(DataError, match=message):
        open_session(folder)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (None, "scenes.npy needs the size"),
        ({"size": [9, 7]}, "expected {'size'"),
        ({"size": [9, 0], "pixels_per_degree": 3}, "window size is"),
        ({"size": [9, 7], "pixels_per_degree": -1}, "window pixels_per_degree is -1"),
    ],
)
def test_scenes_need_a_window(make_session, window, message):
    with pytest.raises(DataError, match=message):
        make_session(kind="scenes", given={"window": window})


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_an_unreadable_session_json_is_named(make_session, text):
    folder = make_session()
    (folder / "session.json").write_text(text)
    with pytest.raises(DataError, match=r"session.json: (cannot be read as JSON|holds a list)"):
        open_session(folder)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("gaze", (180, 3), r"gaze.npy: shape is \(180, 3\), expected \(180, 2\).*gaze\[:, :2\]"),
        ("gaze", (2, 180), r"gaze.npy: shape is \(2, 180\), expected \(180, 2\). It is transposed"),
        ("gaze", (180,), r"gaze.npy: shape is \(180,\), expected \[T, 2\]"),
        ("gaze", (170, 2), r"gaze.npy: has 170 frames, spikes.npy has 180"),
        ("valid", (179, 3), "valid.npy: has 179 frames, spikes.npy has 180"),
        ("valid", (180, 2), "valid.npy: has 2 columns, session.json lists 3 unit_ids"),
        ("trial", (181,), "trial.npy: has 181 frames"),
        ("tier", (18,), "tier.npy: has 18 frames"),
        (
            "spikes",
            (180,),
            r"spikes.npy: shape is \(180,\), expected \[T, N\]. One unit still needs its axis",
        ),
        (
            "frames",
            (100, 9, 7),
            r"frames.npy: has 100 frames, spikes.npy has 180, and there is no frame_index",
        ),
        ("frames", (180, 63), r"frames.npy: shape is \(180, 63\), expected \[F, H, W\]"),
        ("true_rate", (180, 2), "true_rate.npy: has 2 columns"),
        ("spikes", (0, 3), "spikes.npy: is empty"),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_both_lengths(make_session, name, shape, message):
    kind = session_arrays().get(name, np.zeros(0, np.float32)).dtype
    with pytest.raises(DataError, match=message):
        make_session(**{name: np.zeros(shape, kind)})


def test_one_column_of_valid_serves_all_units(make_session):
    session = open_session(make_session(valid=np.ones((180, 1), bool)))
    assert session.valid.shape == (180, 1)


@pytest.mark.parametrize("value", [-1, 4])
def test_a_frame_index_outside_the_movie_is_named(make_session, value):
    index = session_arrays(kind="scenes")["frame_index"]
    index[17] = value
    with pytest.raises(DataError, match=rf"frame_index.npy: is {value} at frame 17, scenes.npy holds 0..3"):
        make_session(kind="scenes", frame_index=index)


def test_gaze_that_is_not_finite_in_a_valid_bin_is_an_error_that_names_the_first_frame(make_session):
    gaze = session_arrays()["gaze"]
    gaze[40:43] = np.nan
    valid = np.ones((180, 3), bool)
    with pytest.raises(
        DataError, match=r"gaze.npy: 3 frames of valid bins .* first at frame 40.*valid False"
    ):
        make_session(gaze=gaze, valid=valid)


def test_gaze_that_is_not_finite_in_invalid_bins_is_held(make_session):
    gaze, valid = session_arrays()["gaze"], np.ones((180, 3), bool)
    gaze[:2], gaze[40:43] = np.nan, (np.inf, 0)
    valid[:2], valid[40:43] = False, False
    session = open_session(make_session(gaze=gaze, valid=valid))
    np.testing.assert_array_equal(session.gaze[39:44], gaze[[39, 39, 39, 39, 43]])
    np.testing.assert_array_equal(session.gaze[:3], gaze[[2, 2, 2]])
    assert session.notes == ("non-finite gaze in invalid bins is held at its last finite value",)


def test_gaze_in_pixels_is_refused(make_session):
    with pytest.raises(DataError, match=r"gaze.npy: reaches .*expected degrees within 90.*pixels"):
        make_session(gaze=session_arrays()["gaze"] + np.float32(640))


def test_gaze_without_any_finite_frame_is_refused(make_session):
    with pytest.raises(DataError, match="gaze.npy: has no finite frame"):
        make_session(gaze=np.full((180, 2), np.nan, np.float32), valid=np.zeros((180, 3), bool))


def test_frames_that_are_not_finite_are_held_in_invalid_bins_and_refused_in_valid_ones(make_session):
    frames = session_arrays()["frames"].astype(np.float32)
    frames[61, 2, 3] = np.nan
    valid = np.ones((180, 3), bool)
    with pytest.raises(
        DataError, match=r"frames.npy: 1 frames of valid bins are not finite, first at frame 61"
    ):
        make_session(frames=frames, valid=valid)
    valid[61] = False
    session = open_session(make_session(frames=frames, valid=valid))
    assert session.frame_index[60:63].tolist() == [60, 60, 62]


@pytest.mark.parametrize(
    ("factor", "message"),
    [(1 / 255, "Frames of 0..1 need a factor of 255"), (2.0, "expected 0..255. Rescale")],
)
def test_float_frames_of_another_range_are_refused(make_session, factor, message):
    with pytest.raises(DataError, match=message):
        make_session(frames=session_arrays()["frames"].astype(np.float32) * np.float32(factor))


@pytest.mark.parametrize(
    ("value", "word"), [(-1, "is negative"), (0.5, "is not whole"), (np.nan, "is not finite")]
)
def test_counts_that_are_no_counts_are_named_with_unit_and_frame(make_session, value, word):
    spikes, valid = session_arrays()["spikes"].astype(np.float32), np.ones((180, 3), bool)
    spikes[77, 2] = value
    with pytest.raises(DataError, match=rf"count {value:g} of unit column 2 at frame 77 {word}"):
        make_session(spikes=spikes, valid=valid)
    valid[77, 2] = False
    assert open_session(make_session(spikes=spikes, valid=valid)).silent_units == ()


@pytest.mark.parametrize("value", [-0.1, np.nan])
def test_true_rates_are_finite_and_not_negative(make_session, value):
    rate = np.ones((180, 3), np.float32)
    rate[9, 1] = value
    with pytest.raises(DataError, match=r"true_rate.npy: is .* at frame 9, unit column 1"):
        make_session(true_rate=rate)


def test_a_tier_that_splits_a_trial_is_refused(make_session):
    tier = session_arrays()["tier"]
    tier[45:] = 2
    with pytest.raises(DataError, match="tier.npy: changes from 0 to 2 at frame 45 inside trial 1"):
        make_session(tier=tier)


def test_trials_are_numbered_runs(make_session):
    trial = session_arrays()["trial"]
    trial[2 * TRIAL_FRAMES : 3 * TRIAL_FRAMES] = 0
    with pytest.raises(DataError, match="trial.npy: trial 0 comes back at frame 60"):
        make_session(trial=trial)
    with pytest.raises(DataError, match="trial.npy: is -1 at frame 0"):
        make_session(trial=session_arrays()["trial"] - 1)
    with pytest.raises(DataError, match="tier.npy: is 3 at frame 0"):
        make_session(tier=np.full(180, 3, np.uint8))
    with pytest.raises(DataError, match="repeat.npy: is -2 at frame 4"):
        make_session(repeat=np.where(np.arange(180) == 4, -2, -1).astype(np.int32))


def test_a_truncated_array_is_named_with_its_byte_counts(make_session):
    folder = make_session()
    path = folder / "spikes.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"spikes.npy: 568 bytes, but shape \(180, 3\) of uint8 needs 668"):
        open_session(folder)


def test_a_changed_byte_is_found_by_its_digest(make_session):
    folder = make_session()
    path = folder / "spikes.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"spikes.npy: sha256 is .*session.json says"):
        open_session(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an array", "spikes.npy: is not a NumPy array file"),
        (b"", "spikes.npy: is not a NumPy array file"),
    ],
)
def test_a_file_of_another_format_is_named(make_session, content, message):
    folder = make_session()
    (folder / "spikes.npy").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_session(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((180, 3), object), "holds Python objects"),
        (np.zeros((180, 3), np.int64), "type is int64, expected uint8 or uint16 or float32"),
        (np.asfortranarray(np.zeros((180, 3), np.uint8)), "Fortran order"),
    ],
)
def test_arrays_written_by_other_programs_are_checked_too(make_session, values, message):
    folder = make_session()
    replace_array(folder, "spikes", values)
    with pytest.raises(DataError, match=message):
        open_session(folder)


def test_a_unit_without_spikes_is_kept_and_reported(make_session):
    spikes = session_arrays()["spikes"]
    spikes[:, 1] = 0
    session = open_session(make_session(spikes=spikes))
    assert session.silent_units == ("alpha-1",)
    assert session.unit_ids == ("alpha-0", "alpha-1", "alpha-2")
    assert session.notes == ("1 of 3 units without a spike: alpha-1",)


def test_an_implausible_count_is_reported(make_session):
    spikes, valid = session_arrays()["spikes"], np.ones((180, 1), bool)
    spikes[3, 0] = 50
    assert "6000 spikes/s; check rate_hz" in open_session(make_session(spikes=spikes, valid=valid)).notes[0]


def test_sessions_are_found_by_folder_by_parent_and_by_commas(make_session, tmp_path):
    alpha, beta = make_session("alpha"), make_session("beta")
    assert find_sessions(str(tmp_path)) == [alpha, beta]
    assert find_sessions(f"{beta}, {alpha}") == [beta, alpha]


def test_two_sessions_of_one_name_are_named_with_both_paths(make_session, tmp_path):
    make_session("alpha")
    other = write_session(tmp_path / "other", arrays=session_arrays(), **fields("alpha"))
    with pytest.raises(DataError, match=rf"two sessions have the name 'alpha': .*alpha and {other}"):
        find_sessions(str(tmp_path))


def test_a_config_value_that_names_no_session_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find_sessions(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no session.json"):
        find_sessions(str(tmp_path))
    with pytest.raises(DataError, match="expected the path of a session folder"):
        find_sessions(" , ")
