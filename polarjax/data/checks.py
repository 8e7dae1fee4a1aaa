"""What must hold between and inside the arrays of a session, and what a reader is told where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer, Num, Shaped

from polarjax.core import DataError
from polarjax.data.arrays import Faults

LARGEST_GAZE_DEG = 90.0
ROWS_AT_A_TIME = 65536
TIERS = {"0": "train", "1": "validation", "2": "test"}

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


def chunks(length: int) -> Iterator[slice]:
    """Yields slices that cover `length` rows, so that checks of long sessions stay small in memory."""
    for start in range(0, length, ROWS_AT_A_TIME):
        yield slice(start, min(start + ROWS_AT_A_TIME, length))


def check_lengths(folder: Path, arrays: Arrays, units: int) -> None:
    """Raises a DataError where arrays disagree about the number of frames T or of units N, or gaze is not [T, 2]."""
    faults, clock = Faults(folder), "spikes" if "spikes" in arrays else "trial"
    frames = arrays[clock].shape[0]
    _check_gaze_shape(faults, arrays["gaze"].shape, frames)
    for name in ("gaze", "valid", "trial", "tier", "frame_index", "repeat", "true_rate", "timestamps"):
        if name in arrays and arrays[name].shape[0] != frames:
            problem = f"has {arrays[name].shape[0]} frames, {clock}.npy has {frames}"
            raise faults.error(
                f"{name}.npy", problem, "All arrays share one time line; cut them to the same recording"
            )
    for name in ("spikes", "valid", "true_rate"):
        if name in arrays and arrays[name].shape[1] not in ((units, 1) if name == "valid" else (units,)):
            problem = f"has {arrays[name].shape[1]} columns, session.json lists {units} unit_ids"
            raise faults.error(f"{name}.npy", problem, "One column a unit, in the order of unit_ids")
    movie = arrays.get("frames", arrays.get("scenes"))
    if "frame_index" not in arrays and movie is not None and movie.shape[0] != frames:
        file = "frames.npy" if "frames" in arrays else "scenes.npy"
        problem = f"has {movie.shape[0]} frames, {clock}.npy has {frames}, and there is no frame_index.npy"
        raise faults.error(file, problem, "Without frame_index.npy frame t is on the screen at t")


def _check_gaze_shape(faults: Faults, shape: tuple[int, ...], frames: int) -> None:
    if shape[1] == 2:
        return
    remedy = "Columns are x (right) and y (up) in degrees"
    if shape[0] == 2:
        remedy = "It is transposed: write gaze.T"
    elif shape[1] == 3:
        remedy = "The third column is often pupil size: select gaze[:, :2]"
    raise faults.error("gaze.npy", f"shape is {shape}, expected ({frames}, 2)", remedy)


def check_movie(
    folder: Path, name: str, movie: Num[np.ndarray, "F H W C"], index: Int[np.ndarray, " T"]
) -> None:
    """Raises a DataError for a frame_index outside the movie, or float frames that are not luminance 0..255."""
    faults = Faults(folder)
    bad = np.flatnonzero((index < 0) | (index >= movie.shape[0]))
    if bad.size:
        problem = f"is {index[bad[0]]} at frame {bad[0]}, {name}.npy holds 0..{movie.shape[0] - 1}"
        problem += f" ({bad.size} such frames)"
        raise faults.error("frame_index.npy", problem, "Usual cause: counting from 1")
    if movie.dtype != np.float32:
        return
    finite = movie[np.isfinite(movie)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 255.0)
    if lowest < 0 or highest > 255 or highest <= 1.5:
        remedy = "Frames of 0..1 need a factor of 255" if highest <= 1.5 else "Rescale to luminance 0..255"
        raise faults.error(
            f"{name}.npy", f"values run from {lowest:g} to {highest:g}, expected 0..255", remedy
        )


def check_trials(folder: Path, trial: Int[np.ndarray, " T"], tier: Integer[np.ndarray, " T"]) -> None:
    """Raises a DataError for a trial that comes back after another, or whose frames lie in several tiers."""
    faults = Faults(folder)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(trial)) + 1])
    if trial.min() < 0:
        raise faults.error(
            "trial.npy", f"is {trial.min()} at frame {trial.argmin()}", "Expected trial numbers >= 0"
        )
    numbers, first = np.unique(trial[starts], return_index=True)
    if len(numbers) < len(starts):
        again = starts[np.setdiff1d(np.arange(len(starts)), first)[0]]
        problem = f"trial {trial[again]} comes back at frame {again} after another trial"
        raise faults.error(
            "trial.npy", problem, "Frames of a trial are consecutive; give each run its own number"
        )
    if tier.max() > 2:
        problem = f"is {tier.max()} at frame {tier.argmax()}"
        raise faults.error("tier.npy", problem, "Expected 0 (train), 1 (validation) or 2 (test)")
    split = np.flatnonzero((np.diff(tier.astype(np.int32)) != 0) & (np.diff(trial) == 0))
    if split.size:
        before, after = tier[split[0] : split[0] + 2].tolist()
        problem = f"changes from {before} to {after} at frame {split[0] + 1} inside trial {trial[split[0]]}"
        raise faults.error("tier.npy", problem, "A trial lies in one tier, or training would see the test")


def check_repeat(folder: Path, repeat: Int[np.ndarray, " T"]) -> None:
    """Raises a DataError for a repeat number below -1."""
    if repeat.min() < -1:
        problem = f"is {repeat.min()} at frame {repeat.argmin()}"
        raise Faults(folder).error("repeat.npy", problem, "Expected -1 (no repeat) or a number >= 0")


def hold_gaze(
    folder: Path, gaze: Num[np.ndarray, "T 2"], scored: Bool[np.ndarray, " T"]
) -> Num[np.ndarray, "T 2"]:
    """Returns gaze with the non-finite frames of invalid bins held at the last finite value.

    Args:
      folder: the session folder, for messages.
      gaze: degrees.
      scored: True where some unit of the bin is valid.

    Raises:
      DataError: a non-finite gaze in a valid bin, or values that cannot be degrees.
    """
    finite = np.asarray(np.isfinite(gaze).all(axis=1))
    _refuse_scored("gaze.npy", folder, ~finite, scored)
    largest = float(np.abs(gaze[finite]).max()) if finite.any() else 0.0
    if largest > LARGEST_GAZE_DEG:
        remedy = "Usual cause: pixels; divide by pixels_per_degree"
        problem = f"reaches {largest:g}, expected degrees within {LARGEST_GAZE_DEG:g}"
        raise Faults(folder).error("gaze.npy", problem, remedy)
    return gaze if finite.all() else np.asarray(gaze)[last_true(finite)]


def hold_frames(
    folder: Path,
    name: str,
    movie: Num[np.ndarray, "F H W C"],
    index: Int[np.ndarray, " T"],
    scored: Bool[np.ndarray, " T"],
) -> Int[np.ndarray, " T"]:
    """Returns frame_index with the bins of non-finite frames held at the last finite frame.

    Raises:
      DataError: a non-finite frame in a valid bin, or no finite frame at all.
    """
    if movie.dtype != np.float32:
        return index
    finite = np.asarray(np.isfinite(movie).all(axis=(1, 2, 3)))[index]
    if finite.all():
        return index
    _refuse_scored(f"{name}.npy", folder, ~finite, scored)
    return np.asarray(index)[last_true(finite)]


def _refuse_scored(
    file: str, folder: Path, bad: Bool[np.ndarray, " T"], scored: Bool[np.ndarray, " T"]
) -> None:
    faults = Faults(folder)
    if bad.all():
        raise faults.error(file, "has no finite frame", "Check the recording or the conversion")
    wrong = np.flatnonzero(bad & scored)
    if wrong.size:
        problem = f"{wrong.size} frames of valid bins are not finite, first at frame {wrong[0]}"
        raise faults.error(file, problem, "Set valid False there (blinks, lost frames) or repair the values")


def last_true(mask: Bool[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """Returns for each frame the latest one up to it where `mask` holds, or the first such where none is yet."""
    latest = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
    return np.where(latest < 0, np.argmax(mask), latest)


def check_together(sessions: tuple, frame_shapes: list[tuple[int, int, int]]) -> None:
    """Raises a DataError, naming both sessions, where they cannot train one model.

    Args:
      sessions: open sessions.
      frame_shapes: (H, W, C) of the windows of each.
    """
    first = sessions[0]
    for other, shape in zip(sessions[1:], frame_shapes[1:], strict=True):
        pairs = {
            "rate_hz": (first.rate_hz, other.rate_hz, 1e-6),
            "window pixels_per_degree": (
                first.window_pixels_per_degree,
                other.window_pixels_per_degree,
                0.01,
            ),
        }
        for axis, mine, its in zip(
            ("frame height", "frame width", "channels"), frame_shapes[0], shape, strict=True
        ):
            pairs[axis] = (mine, its, 0.0)
        for field, (mine, its, tolerance) in pairs.items():
            if abs(mine - its) > tolerance * abs(mine):
                raise DataError(
                    f"sessions {first.name} and {other.name} differ in {field}: {mine} and {its}; a run has one. "
                    f"Resample one of them, or train them apart ({first.folder}, {other.folder})"
                )
