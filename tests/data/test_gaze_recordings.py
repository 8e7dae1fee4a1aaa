"""Recorded gaze over the photographs of the virtual V1: what is read, where it is cut, what is refused."""

import json
import pathlib

import numpy as np
import pytest

from polarjax import data
from polarjax.core import DataError
from polarjax.data import gaze_recordings, gaze_simulation, virtual_v1
from polarjax.data.sessions import open_session

RATE_HZ = 120.0
REAL_GAZE = (
    pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "marmoset_fixation_gaze_120hz.npz"
)


def traces_of(lengths, seed=0, rate_hz=RATE_HZ):
    rng = np.random.default_rng(seed)
    return [gaze_simulation.simulate_gaze(rng, n, rate_hz, 1.0, fixation_s=np.inf) for n in lengths]


@pytest.fixture
def write(tmp_path):
    """write(traces, **arrays to replace) -> path of an .npz; None leaves an array out."""

    def write(traces, name="gaze.npz", rate_hz=RATE_HZ, **replaced):
        offsets = np.concatenate([[0], np.cumsum([len(trace) for trace in traces])])
        arrays = {"gaze_deg": np.concatenate(traces), "offsets": offsets, "rate_hz": np.float32(rate_hz)}
        arrays = {key: values for key, values in (arrays | replaced).items() if values is not None}
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


def test_traces_are_read_as_they_were_written(write):
    given = traces_of([50, 130, 70])
    read = gaze_recordings.read_traces(write(given), RATE_HZ)
    for ours, theirs in zip(read.traces, given, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_trial_lies_in_one_trace_and_what_is_too_short_is_left_out(write):
    given = [trace + 0.1 * k for k, trace in enumerate(traces_of([130, 39, 85]))]
    read = gaze_recordings.read_traces(write(given), RATE_HZ)
    pieces = gaze_recordings.cut_trials(read, 40, RATE_HZ, 4.0)
    sources = [given[0][:40], given[0][40:80], given[0][80:120], given[2][:40], given[2][40:80]]
    assert pieces.shape == (5, 40, 2)
    for piece, source in zip(pieces, sources, strict=True):
        np.testing.assert_allclose(np.diff(piece, axis=0), np.diff(source, axis=0), atol=1e-6)
        np.testing.assert_allclose(piece.max(axis=0), -piece.min(axis=0), atol=1e-6)


def test_a_trial_wider_than_the_field_is_left_out(write):
    read = gaze_recordings.read_traces(write([8 * trace for trace in traces_of([400] * 3)]), RATE_HZ)
    widths = [np.ptp(trace[k : k + 40], axis=0).max() for trace in read.traces for k in range(0, 400, 40)]
    limit = float(np.median(widths)) / 2
    assert len(gaze_recordings.cut_trials(read, 40, RATE_HZ, limit)) == sum(w <= 2 * limit for w in widths)


def test_traces_are_cut_where_samples_are_missing_and_not_at_saccades():
    whole = np.asarray(traces_of([2000])[0], np.float64)
    speed = np.linalg.norm(np.diff(whole, axis=0), axis=1)
    assert speed.max() > 0.3
    assert len(gaze_recordings.split_at_gaps(whole, RATE_HZ)) == 1
    quiet = int(np.argmax(np.convolve(speed < 0.02, np.ones(8), "valid") == 8)) + 4
    jumped = np.concatenate([whole[:quiet], whole[quiet:] + 0.7])
    assert [len(piece) for piece in gaze_recordings.split_at_gaps(jumped, RATE_HZ)] == [quiet, 2000 - quiet]
    assert len(gaze_recordings.split_at_gaps(jumped, 60.0)) == 1
    lost = whole.copy()
    lost[100:110, 1], lost[-3:] = np.nan, np.inf
    assert [len(piece) for piece in gaze_recordings.split_at_gaps(lost, RATE_HZ)] == [100, 1887]
    assert gaze_recordings.split_at_gaps(np.full((5, 2), np.nan), RATE_HZ) == []


def test_no_saccade_of_the_main_sequence_is_taken_for_a_gap_wherever_it_starts():
    seconds = np.arange(40) / RATE_HZ
    for amplitude in (0.6, 1.0, 2.0, 8.0):
        duration = float(gaze_simulation.saccade_duration(amplitude))
        for onset in np.linspace(0.1, 0.1 + 1 / RATE_HZ, 30):
            path = amplitude * gaze_simulation.minimum_jerk((seconds - onset) / duration)
            trace = np.stack([path, np.zeros(40)], axis=1)
            assert len(gaze_recordings.split_at_gaps(trace, RATE_HZ)) == 1


@pytest.mark.parametrize("rate_hz", [60.0, 240.0, 1000.0])
def test_another_rate_becomes_the_mean_over_each_frame(rate_hz):
    seconds = np.arange(round(2 * rate_hz)) / rate_hz
    trace = np.stack([3 * seconds, np.sin(2 * np.pi * seconds)], axis=1)
    frames = gaze_recordings.resample(trace, rate_hz, RATE_HZ)
    middle = (np.arange(len(frames)) + 0.5) / RATE_HZ
    assert abs(len(frames) / RATE_HZ - 2) < 2 / min(rate_hz, RATE_HZ)
    np.testing.assert_allclose(frames[:, 0], 3 * middle, atol=1e-9)
    np.testing.assert_allclose(frames[:, 1], np.sin(2 * np.pi * middle), atol=2e-3)


def test_tremor_faster_than_the_frames_is_averaged_out():
    seconds = np.arange(2000) / 1000
    trace = np.stack([np.sin(2 * np.pi * 240 * seconds), np.zeros(2000)], axis=1)
    assert np.abs(gaze_recordings.resample(trace, 1000.0, RATE_HZ)).max() < 0.1


def test_movements_of_training_trials_are_not_those_of_other_tiers_and_stay_in_the_field():
    pieces = np.random.default_rng(0).uniform(-1, 1, (20, 5, 2))
    tier = np.repeat([0, 1, 2], [40, 3, 3])
    gaze = gaze_recordings.lay_over(np.random.default_rng(1), pieces, tier, 4.0)
    assert (
        gaze.dtype == np.float32 and np.abs(gaze).max() <= 4 and np.ptp(gaze.mean(axis=1), axis=0).min() > 4
    )
    moves = np.diff(gaze, axis=1)
    wanted = np.diff(pieces, axis=1)
    which = [int(np.abs(wanted - move[None]).max(axis=(1, 2)).argmin()) for move in moves]
    training, others = set(which[:40]), set(which[40:])
    assert len(training) == 16 and len(others) == 4 and not training & others


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"offsets": None},
            "lacks offsets, it holds gaze_deg, rate_hz; expected an .npz with gaze_deg float",
        ),
        ({"gaze_deg": np.zeros((2, 300), np.float32)}, r"gaze_deg is float32 \(2, 300\)"),
        ({"gaze_deg": np.zeros((300, 2), np.int32)}, "gaze_deg is int32"),
        ({"gaze_deg": np.full((300, 2), None)}, "cannot be read .*allow_pickle"),
        ({"offsets": np.array([0.0, 300.0])}, "offsets is float64"),
        ({"offsets": np.array([0])}, r"offsets is int64 \(1,\)"),
        ({"offsets": np.array([0, 200, 100])}, "offsets goes from 200 to 100 at 2, it must grow"),
        ({"offsets": np.array([0, 301])}, "offsets runs from 0 to 301, gaze_deg has 300 samples"),
        ({"offsets": np.array([-1, 300])}, "offsets runs from -1 to 300"),
        ({"rate_hz": np.float32(0)}, "rate_hz is .*not a number above 0"),
        ({"rate_hz": np.full(3, 120.0)}, "rate_hz is .*not a number above 0"),
        (
            {"gaze_deg": 200 * np.concatenate(traces_of([300]))},
            "the median speed is .*pixels, radians or another",
        ),
        ({"gaze_deg": np.zeros((300, 2))}, "the median speed is 0"),
        ({"gaze_deg": np.full((300, 2), np.nan)}, "the median speed is 0"),
    ],
)
def test_a_file_of_another_form_is_answered_with_what_is_expected(write, changes, message):
    with pytest.raises(DataError, match=rf"config.data.virtual.gaze: .*gaze.npz: .*{message}.*"):
        gaze_recordings.read_traces(write(traces_of([300]), **changes), RATE_HZ)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken", b"text"])
def test_a_file_that_is_missing_or_no_npz_is_named(tmp_path, content):
    file = tmp_path / "gaze.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        DataError, match=r"gaze.npz: (there is no such file|cannot be read).*expected an .npz"
    ):
        gaze_recordings.read_traces(str(file), RATE_HZ)


def test_an_array_alone_is_no_npz(tmp_path):
    np.save(tmp_path / "gaze.npy", np.zeros((300, 2)))
    with pytest.raises(DataError, match="lacks gaze_deg, offsets, rate_hz, it holds nothing by name"):
        gaze_recordings.read_traces(str(tmp_path / "gaze.npy"), RATE_HZ)


def test_traces_that_are_all_too_short_are_refused_with_the_longest(write, tmp_path):
    with pytest.raises(DataError, match="holds 0 trials of 1 s within 8 degrees .* has 0.75 s; expected"):
        virtual_v1.ensure_virtual_v1(0, 0.2, tmp_path / "cache", write(traces_of([90, 60])))


def test_the_virtual_v1_moves_recorded_gaze_over_its_photographs(write, tmp_path, section):
    given = traces_of([130] * 30)
    path, cache = write(given), tmp_path / "cache"
    folders = virtual_v1.ensure_virtual_v1(0, 0.2, cache, path)
    for folder in folders:
        session = open_session(folder)
        assert session.notes == () and "gaze of gaze.npz (sha256" in session.source
        trials = np.asarray(session.gaze).reshape(-1, 120, 2)
        assert len(trials) == 12
        steps = np.linalg.norm(np.diff(trials, axis=1), axis=-1)
        recorded = np.concatenate([np.linalg.norm(np.diff(trace, axis=0), axis=1) for trace in given])
        assert steps.max() <= recorded.max() + 1e-5
        found = sum(
            any(
                np.allclose(np.diff(trial, axis=0), np.diff(trace[:120], axis=0), atol=1e-5)
                for trace in given
            )
            for trial in trials
        )
        assert found == 12
        assert np.abs(trials).max() <= virtual_v1.FIELD_DEG and np.ptp(trials.mean(axis=1), axis=0).min() > 2
        assert json.loads((folder / "units.json").read_text())["units"]
    before = (folders[0] / "gaze.npy").stat().st_mtime_ns
    assert virtual_v1.ensure_virtual_v1(0, 0.2, cache, path) == folders
    assert (folders[0] / "gaze.npy").stat().st_mtime_ns == before
    virtual = {"seed": 0, "minutes": 0.2, "cache": str(cache), "gaze": path}
    assert data.build(section("", virtual=virtual)).info.sessions[0].path == ""


def test_another_file_of_the_same_name_is_generated_anew_and_an_equal_one_is_not(
    write, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(virtual_v1, "_generate", lambda folder, *_: asked.append(folder.name))
    for seed, name in ((0, "gaze.npz"), (1, "gaze.npz"), (0, "copy.npz")):
        virtual_v1.ensure_virtual_v1(0, 12.0, tmp_path / "cache", write(traces_of([130] * 3, seed), name))
    virtual_v1.ensure_virtual_v1(0, 12.0, tmp_path / "cache")
    first, other, copy, simulated = asked
    assert first == copy != other and simulated == "version2-seed0-minutes12"
    assert first.startswith("version2-seed0-minutes12-gaze")


@pytest.mark.skipif(not REAL_GAZE.exists(), reason="the recorded gaze lies beside the project, not in it")
def test_gaze_recorded_from_marmosets_gives_a_thousand_trials_of_a_second():
    read = gaze_recordings.read_traces(str(REAL_GAZE), RATE_HZ)
    pieces = gaze_recordings.cut_trials(read, 120, RATE_HZ, virtual_v1.FIELD_DEG)
    assert len(pieces) > 1000 and np.abs(pieces).max() < 1
    speed = np.median(np.linalg.norm(np.diff(pieces, axis=1), axis=-1)) * RATE_HZ
    assert 2 < speed < 10
