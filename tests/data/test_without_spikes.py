"""Sessions of stimulus and gaze alone: opened, cut, scored, mixed with others, and spikes that are ignored."""

import jax
import numpy as np
import pytest

from polarjax import data
from polarjax.core import DataError
from polarjax.data.segments import Cut, Sampler
from polarjax.data.sessions import open_session
from polarjax.doctor import recordings

from .conftest import session_arrays
from .test_sessions import change_json

WITHOUT = {"spikes": None, "valid": None, "given": {"unit_ids": []}}
LOST = slice(40, 45)


@pytest.fixture
def silent(make_session):
    """silent(name, **arrays) -> folder of a session without spikes."""
    return lambda name="alpha", **changes: make_session(name, **{**WITHOUT, **changes})


def with_blink():
    gaze = session_arrays()["gaze"]
    gaze[LOST] = np.nan
    return gaze


def batches(built, requests):
    fetch = jax.jit(built.fetch)
    return [jax.device_get(fetch(built.resident, request)) for request in requests]


def test_a_session_without_spikes_opens_with_no_units_and_every_frame_usable(silent):
    folder = silent()
    session = open_session(folder)
    assert not (folder / "spikes.npy").exists() and not (folder / "valid.npy").exists()
    assert (session.unit_ids, session.spikes.shape, session.notes) == ((), (180, 0), ())
    assert session.valid.shape == (180, 1) and session.valid.all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": None}, "valid.npy: the file is missing, but spikes.npy is there. A session has both"),
        ({"spikes": None}, "spikes.npy: the file is missing, but valid.npy is there"),
        ({"spikes": None, "valid": None}, "unit_ids lists 3 units, but spikes.npy and valid.npy are missing"),
        ({"given": {"unit_ids": []}}, r"unit_ids is \[\].*or neither spikes.npy nor valid.npy"),
        (
            {"spikes": np.zeros((180, 0), np.uint8)},
            r"spikes.npy: is empty, shape \(180, 0\).*without units has neither",
        ),
        (
            {**WITHOUT, "true_rate": np.ones((180, 3), np.float32)},
            "true_rate.npy: has 3 columns, .* 0 unit_ids",
        ),
        ({**WITHOUT, "gaze": np.zeros((179, 2), np.float32)}, "gaze.npy: has 179 frames, trial.npy has 180"),
        ({**WITHOUT, "gaze": 50 * session_arrays()["gaze"]}, "gaze.npy: the median speed is"),
        ({**WITHOUT, "gaze": np.full((180, 2), np.nan, np.float32)}, "gaze.npy: has no finite frame"),
    ],
)
def test_a_session_that_has_some_of_what_counts_need_is_refused(make_session, changes, message):
    with pytest.raises(DataError, match=message):
        make_session(**changes)


def test_unit_ids_that_are_no_list_are_refused_without_spikes_too(silent):
    folder = silent()
    change_json(folder, unit_ids="u1")
    with pytest.raises(DataError, match="unit_ids is 'u1', but spikes.npy and valid.npy are missing"):
        open_session(folder)


def test_without_spikes_segments_hold_no_frame_whose_gaze_or_image_is_lost(silent):
    frames = session_arrays()["frames"].astype(np.float32)
    frames[70] = np.nan
    session = open_session(silent(gaze=with_blink(), frames=frames))
    assert [note.split(",")[0] for note in session.notes] == [
        "5 of 180 frames of non-finite gaze",
        "1 of 180 frames of non-finite stimulus",
    ]
    assert "in frames of no segment" in session.notes[0] and np.isfinite(session.gaze).all()
    starts = Sampler((session,), (np.zeros(0, bool),), Cut(6, 4), (1.0,), 0).starts[0]
    lost = np.zeros(180, bool)
    lost[LOST], lost[70] = True, True
    wanted = [
        start
        for start in range(171)
        if start // 30 == (start + 9) // 30 < 4 and not lost[start : start + 10].any()
    ]
    assert starts.tolist() == wanted


def test_without_spikes_every_usable_frame_with_enough_history_is_evaluated_once(silent):
    session = open_session(silent(gaze=with_blink(), tier=np.zeros(180, np.uint8)))
    sampler = Sampler((session,), (np.zeros(0, bool),), Cut(6, 5), (1.0,), 0)
    times = np.zeros(180)
    for request in sampler.evaluation(0, 4):
        for start, counted in zip(request["start"], request["counted"], strict=True):
            times[start + 6 + np.flatnonzero(counted)] += 1
    wanted = np.arange(180) % 30 >= 6
    wanted[LOST] = False
    np.testing.assert_array_equal(times, wanted)


def test_a_session_whose_every_segment_has_a_lost_gaze_says_so(silent, section):
    gaze = session_arrays()["gaze"]
    gaze[::8] = np.nan
    with pytest.raises(
        DataError, match="(?s)0 segments of 10 frames.*gaze or image not finite.*Check gaze.npy"
    ):
        data.build(section([silent(gaze=gaze)]))


def test_a_number_that_stands_for_a_blink_is_reported_with_its_remedy(silent):
    gaze = session_arrays()["gaze"]
    gaze[LOST] = 0
    (note,) = open_session(silent(gaze=gaze)).notes
    assert note.startswith("4 frames (2.2%) repeat the gaze") and note.endswith(
        "stands for a blink, write NaN"
    )


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_sessions_with_and_without_spikes_share_batches_whose_padded_units_are_never_scored(
    make_session, silent, section, storage
):
    folders = [silent("alpha", kind="scenes"), make_session("beta", seed=1)]
    built = data.build(section(folders, storage=storage, drop_silent=True))
    assert built.info.max_units == 3
    first = built.info.sessions[0]
    assert (first.unit_ids, first.mean_count, first.position_deg) == ((), (), ())
    (batch,) = batches(built, [built.train(0)])
    assert batch.spikes.shape == (8, 4, 3)
    assert not batch.valid[0::2].any() and not batch.spikes[0::2].any()
    assert batch.valid[1::2].any()
    assert sum(batch.valid.any() for batch in batches(built, built.evaluation(2, 4))) > 0
    built.close()


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_sessions_all_without_spikes_give_batches_of_no_units(silent, section, storage):
    built = data.build(section([silent("alpha", kind="scenes"), silent("beta")], storage=storage))
    assert built.info.max_units == 0
    for batch in batches(built, [built.train(5), *built.evaluation(1, 4)]):
        assert batch.spikes.shape == batch.valid.shape == (len(batch.gaze), 4, 0)
        assert np.ptp(batch.stimulus) > 0.5 and batch.gaze.any()
    built.close()


def test_resident_and_streamed_batches_without_spikes_are_equal(silent, section):
    folders = [silent("alpha", kind="scenes"), silent("beta", gaze=with_blink())]
    resident, stream = (data.build(section(folders, storage=name)) for name in ("resident", "streamed"))
    for step in range(3):
        (ours,), (theirs,) = (batches(built, [built.train(step)]) for built in (resident, stream))
        for values, copies in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(values, copies)
    stream.close()


@pytest.mark.parametrize(("equal", "expected"), [(False, [2.0, 1.0, 1.0]), (True, [2.0, 1.0, 1.0])])
def test_the_weights_of_sessions_with_spikes_have_mean_one_whatever_the_others_weigh(
    make_session, silent, section, equal, expected
):
    folders = [silent("alpha"), make_session("beta"), make_session("gamma", given={"subject": "other"})]
    weights = {"session_weights": (6.0, 3.0, 3.0), "equal_subjects": equal, "batch_size": 3}
    assert data.build(section(folders, **weights)).train(0)["counted"][:, 0].tolist() == expected


def test_ignored_spikes_are_those_of_a_session_that_never_had_any(make_session, silent, section, tmp_path):
    folder = make_session("alpha")
    plain = data.build(section([silent("same", given={"unit_ids": [], "name": "alpha"})]))
    for file in ("spikes.npy", "valid.npy"):
        (folder / file).unlink()  # nothing of the counts is even opened
    built = data.build(section([folder], ignore_spikes=True))
    ours, theirs = built.info.sessions[0], plain.info.sessions[0]
    assert (ours.unit_ids, ours.mean_count, ours.fingerprint) == ((), (), theirs.fingerprint)
    for step in range(3):
        (batch,), (other,) = (batches(one, [one.train(step)]) for one in (built, plain))
        for values, copies in zip(batch, other, strict=True):
            np.testing.assert_array_equal(values, copies)
    with pytest.raises(DataError, match=r"spikes.npy: the file is missing"):
        open_session(folder)


def test_contrast_chooses_segments_without_spikes_too(silent, section):
    changes = {"contrast_weight": 1.0, "contrast_anneal": 5}
    built = data.build(section([silent()], **changes))
    plain = data.build(section([silent("beta")]))
    assert built.train(0)["start"].tolist() != plain.train(0)["start"].tolist()


def test_the_doctor_tells_that_a_session_has_no_spikes(silent, tmp_path):
    (found,) = recordings.check_sessions(str(silent()))
    assert found.level == "OK" and found.message.startswith(
        "alpha: recorded without spikes, 180 bins at 120 Hz"
    )
