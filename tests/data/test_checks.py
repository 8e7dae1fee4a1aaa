import numpy as np
import pytest

from polarjax.core import DataError
from polarjax.data.sessions import open_session

from .conftest import TRIAL_FRAMES, session_arrays


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
    assert session.notes == (
        "5 of 180 frames of non-finite gaze, in invalid bins, are held at the last finite one",
    )


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


@pytest.mark.parametrize(("factor", "unit"), [(10, "pixels"), (1e-3, "radians")])
def test_gaze_whose_unit_cannot_be_degrees_is_refused_with_both_readings(make_session, factor, unit):
    gaze = session_arrays()["gaze"] * np.float32(factor)
    message = (
        rf"the median speed is [\d.]+ deg/s as stored, and [\d.]+ deg/s if the values are {unit}; expected 0"
    )
    with pytest.raises(DataError, match=message):
        make_session(gaze=gaze)


def test_a_gaze_that_is_held_most_of_the_time_is_judged_where_it_moves(make_session):
    gaze = np.repeat(session_arrays()["gaze"][::3], 3, axis=0)
    assert open_session(make_session(gaze=gaze)).gaze.shape == (180, 2)


def times(change=None, rate_hz=120.0):
    seconds = np.arange(180) / rate_hz
    seconds[2 * TRIAL_FRAMES :] += 7.0  # between two trials
    if change is not None:
        change(seconds)
    return seconds


def test_times_that_fit_the_trials_and_the_rate_are_kept(make_session):
    folder = make_session(timestamps=times())
    open_session(folder)
    np.testing.assert_array_equal(np.load(folder / "timestamps.npy"), times())


def swap(seconds):
    seconds[[40, 41]] = seconds[[41, 40]]


def double(seconds):
    seconds[41] = seconds[40]


def lose_frames(seconds):
    seconds[45:] += 2 / 120


def forget(seconds):
    seconds[5] = np.nan


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (
            times(swap),
            r"timestamps\.npy: 1 steps are not above 0, first from 0\.341666667 to 0\.333333333 s at frame 41",
        ),
        (times(double), r"1 steps are not above 0, .* at frame 41\. Sort the frames of all arrays by time"),
        (
            times(lose_frames),
            r"1 gaps inside trials, first 25 ms before frame 45 of trial 1, .* takes 8\.333 ms\. Start a",
        ),
        (times(forget), r"is nan at frame 5\. Expected seconds"),
        (times(rate_hz=118.0), r"the median step is 8\.475 ms, that is 118 Hz, and rate_hz is 120"),
        (times()[:-1], r"timestamps\.npy: has 179 frames, spikes\.npy has 180"),
    ],
)
def test_times_that_do_not_grow_that_jump_or_that_run_at_another_rate_are_refused(
    make_session, seconds, message
):
    with pytest.raises(DataError, match=message):
        make_session(timestamps=seconds)


def test_a_number_that_stands_for_a_blink_is_reported_and_a_gaze_that_never_moves_is_not(make_session):
    gaze = session_arrays()["gaze"]
    gaze[50:60] = -5.0
    (note,) = open_session(make_session("blink", gaze=gaze, valid=np.ones((180, 3), bool))).notes
    assert note.startswith(
        "9 frames of valid bins (5.0%) repeat the gaze of the frame before, first at frame 51"
    )
    assert "with (-5, -5); where a number stands for a blink, set valid False" in note
    assert open_session(make_session("still", gaze=np.zeros_like(gaze))).notes == ()
