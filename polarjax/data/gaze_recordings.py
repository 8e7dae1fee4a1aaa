"""Recorded gaze for the virtual V1: traces out of an .npz file, cut into trials that lie over its photographs.

gaze_deg float [samples, 2]: degrees, x right and y up, one trace after the other, NaN where it was lost;
offsets int [traces + 1]: the first sample of each trace, and the end; rate_hz: samples per second.

A trial lies inside one trace, and traces are cut where samples are missing: at values that are not finite, and at
jumps that begin and end between two samples, for saccades take longer.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped

from polarjax.core import DataError
from polarjax.data.arrays import digest
from polarjax.data.gaze_checks import FASTEST_MEDIAN_DEG_S, SLOWEST_MEDIAN_DEG_S
from polarjax.data.gaze_simulation import saccade_duration

EXPECTED = (
    "expected an .npz with gaze_deg float [samples, 2] (degrees, x right and y up), offsets int [traces + 1] (the "
    "first sample of each trace, and the end) and rate_hz"
)
NAMES = ("gaze_deg", "offsets", "rate_hz")
LEAST_JUMP_DEG = 0.5
ALONE = 0.1
"""Of a jump: steps before and after it that are smaller do not belong to it. A minimum-jerk saccade of two frames or
more has at least 0.13 of its largest step beside that."""
LEAST_FRAMES_OF_SACCADE = 2.0
PARTS = 16  # points of a frame over which faster samples are averaged
HELD_OUT = 5  # every fifth piece is kept for trials of the validation and test tiers


class GazeTraces(NamedTuple):
    """Gaze without gaps, and which file it is of.

    Attributes:
      file: that it was read from.
      sha256: of the file.
      traces: degrees, frame by frame.
    """

    file: Path
    sha256: str
    traces: tuple[Float[np.ndarray, "_ 2"], ...]


def read_traces(path: str, rate_hz: float) -> GazeTraces:
    """Reads the traces of a file.

    Args:
      path: of the .npz file.
      rate_hz: frames per second of the traces that are returned.

    Raises:
      DataError: the file, with what is expected.
    """
    file = Path(path).expanduser()
    content = _load(file)
    gaze, offsets, stored_hz = (content[name] for name in NAMES)
    _check(file, gaze, offsets, stored_hz)
    pairs = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    pieces = [piece for a, b in pairs for piece in split_at_gaps(gaze[a:b], float(stored_hz))]
    traces = tuple(resample(piece, float(stored_hz), rate_hz) for piece in pieces)
    _check_speed(file, traces, rate_hz)
    return GazeTraces(file, digest(file), traces)


def _error(file: Path, problem: str) -> DataError:
    return DataError(f"config.data.virtual.gaze: {file}: {problem}; {EXPECTED}, or '' for the simulated eye")


def _load(file: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    if not file.is_file():
        raise _error(file, "there is no such file")
    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            names = getattr(archive, "files", [])
            content = {name: archive[name] for name in NAMES if name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _error(file, f"cannot be read ({error})") from error
    missing = [name for name in NAMES if name not in content]
    if missing:
        raise _error(file, f"lacks {', '.join(missing)}, it holds {', '.join(names) or 'nothing by name'}")
    return content


def _check(file: Path, gaze: np.ndarray, offsets: np.ndarray, rate_hz: np.ndarray) -> None:
    if gaze.ndim != 2 or gaze.shape[1] != 2 or gaze.dtype.kind != "f":
        raise _error(file, f"gaze_deg is {gaze.dtype} {gaze.shape}")
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype.kind not in "iu":
        raise _error(file, f"offsets is {offsets.dtype} {offsets.shape}")
    steps = np.diff(offsets.astype(np.int64))
    if (steps <= 0).any():
        first = int(np.argmax(steps <= 0))
        raise _error(
            file, f"offsets goes from {offsets[first]} to {offsets[first + 1]} at {first + 1}, it must grow"
        )
    if offsets[0] < 0 or offsets[-1] > len(gaze):
        raise _error(
            file, f"offsets runs from {offsets[0]} to {offsets[-1]}, gaze_deg has {len(gaze)} samples"
        )
    number = rate_hz.ndim == 0 and rate_hz.dtype.kind in "iuf"
    if not (number and np.isfinite(rate_hz) and rate_hz > 0):
        raise _error(file, f"rate_hz is {rate_hz!r}, not a number above 0")


def _check_speed(file: Path, traces: tuple[Float[np.ndarray, "_ 2"], ...], rate_hz: float) -> None:
    steps = np.concatenate([np.linalg.norm(np.diff(t, axis=0), axis=1) for t in traces] or [np.zeros(0)])
    speed = float(np.median(steps)) * rate_hz if steps.size else 0.0
    if not SLOWEST_MEDIAN_DEG_S <= speed <= FASTEST_MEDIAN_DEG_S:
        limits = f"{SLOWEST_MEDIAN_DEG_S:g} to {FASTEST_MEDIAN_DEG_S:g}"
        problem = (
            f"the median speed is {speed:.3g}, eyes have {limits} deg/s: pixels, radians or another rate"
        )
        raise _error(file, problem)


def split_at_gaps(trace: Float[np.ndarray, "samples 2"], rate_hz: float) -> list[Float[np.ndarray, "_ 2"]]:
    """Cuts a trace where samples are missing: at non-finite ones, and at jumps that are over within one step.

    Saccades on the main sequence take 19 ms and more, so a jump alone between slow steps is none where samples are
    half as far apart; at lower rates nothing can be told, and only non-finite samples cut.
    """
    pieces = []
    finite = np.isfinite(trace).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]])))
    for first, end in edges.reshape(-1, 2).tolist():
        run = np.asarray(trace[first:end], np.float64)
        step = np.linalg.norm(np.diff(run, axis=0), axis=1)
        beside = np.maximum(np.pad(step, (1, 0))[:-1], np.pad(step, (0, 1))[1:])
        frames = saccade_duration(np.maximum(step, LEAST_JUMP_DEG)) * rate_hz
        jump = (step > LEAST_JUMP_DEG) & (beside < ALONE * step) & (frames >= LEAST_FRAMES_OF_SACCADE)
        pieces += np.split(run, np.flatnonzero(jump) + 1)
    return pieces


def resample(
    trace: Float[np.ndarray, "samples 2"], rate_hz: float, wanted_hz: float
) -> Float[np.ndarray, "_ 2"]:
    """Returns the mean of the linearly interpolated gaze over each frame; the trace itself where the rates are equal.

    Args:
      trace: degrees, finite.
      rate_hz: samples per second.
      wanted_hz: frames per second.
    """
    if rate_hz == wanted_hz:
        return trace
    number = int((len(trace) - 1) / rate_hz * wanted_hz + 1e-9)
    seconds = (np.arange(number)[:, None] + (np.arange(PARTS)[None] + 0.5) / PARTS) / wanted_hz
    times = np.arange(len(trace)) / rate_hz
    return np.stack([np.interp(seconds, times, axis).mean(axis=1) for axis in trace.T], axis=1)


def cut_trials(
    recorded: GazeTraces, n_frames: int, rate_hz: float, field_deg: float
) -> Float[np.ndarray, "P n_frames 2"]:
    """Cuts traces into trials, each about (0, 0); what is too short, or wider than the field, is left out.

    Args:
      recorded: the traces.
      n_frames: of a trial.
      rate_hz: frames per second, for messages.
      field_deg: gaze stays within plus and minus this.

    Raises:
      DataError: fewer than two trials remain.
    """
    pieces = [
        trace[first : first + n_frames]
        for trace in recorded.traces
        for first in range(0, len(trace) - n_frames + 1, n_frames)
    ]
    pieces = [piece - (piece.max(axis=0) + piece.min(axis=0))[None] / 2 for piece in pieces]
    narrow = [piece for piece in pieces if np.abs(piece).max() <= field_deg]
    if len(narrow) < 2:
        longest = max((len(trace) for trace in recorded.traces), default=0)
        problem = (
            f"holds {len(narrow)} trials of {n_frames / rate_hz:.3g} s within {2 * field_deg:g} degrees and 2 are the "
            f"least; its longest trace without a gap has {longest / rate_hz:.3g} s"
        )
        raise _error(recorded.file, problem)
    return np.stack(narrow)


def lay_over(
    rng: np.random.Generator,
    pieces: Float[np.ndarray, "P T 2"],
    tier: Integer[np.ndarray, " K"],
    field_deg: float,
) -> Float[np.ndarray, "K T 2"]:
    """Gives every trial a recorded movement, at a random place of the field.

    Movements of training trials are never those of the other tiers, and none is used twice in a tier before all of it
    were; where trials are more, the same movement comes again at another place.

    Args:
      rng: source of randomness.
      pieces: as `cut_trials` returns them.
      tier: of each trial.
      field_deg: gaze stays within plus and minus this.
    """
    held_out, which = np.arange(len(pieces)) % HELD_OUT == 0, np.zeros(len(tier), int)
    for chosen, pool in ((tier == 0, ~held_out), (tier != 0, held_out)):
        which[chosen] = np.resize(rng.permutation(np.flatnonzero(pool)), chosen.sum())
    gaze = pieces[which]
    room = field_deg - np.abs(gaze).max(axis=1, keepdims=True)
    return (gaze + room * rng.uniform(-1.0, 1.0, room.shape)).astype(np.float32)
