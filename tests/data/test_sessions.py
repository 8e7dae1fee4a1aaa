import hashlib
import json

import numpy as np
import pytest

from polarjax.core import DataError
from polarjax.data.sessions import find_sessions, open_session, write_session

from .conftest import fields, session_arrays


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
