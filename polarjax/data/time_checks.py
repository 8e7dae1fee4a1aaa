"""What the times of the frames tell about a session: its order, its gaps, its rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from polarjax.data.arrays import Faults

LONGEST_STEP = 1.5  # frames; a longer one is a gap
RATE_TOLERANCE = 0.01


def check_timestamps(
    folder: Path, seconds: Float[np.ndarray, " T"], trial: Int[np.ndarray, " T"], rate_hz: float
) -> None:
    """Raises a DataError where time does not grow, jumps inside a trial, or runs at another rate.

    Args:
      folder: the session folder, for messages.
      seconds: time of each frame.
      trial: number of the trial of each frame; between two trials any time may pass.
      rate_hz: frames per second.
    """
    faults, file, steps, inside = Faults(folder), "timestamps.npy", np.diff(seconds), np.diff(trial) == 0
    if not np.isfinite(seconds).all():
        first = int(np.argmin(np.isfinite(seconds)))
        raise faults.error(file, f"is {seconds[first]:g} at frame {first}", "Expected seconds")
    back = np.flatnonzero(steps <= 0)
    if back.size:
        before, after = seconds[back[0] : back[0] + 2].tolist()
        problem = f"{back.size} steps are not above 0, first from {before:.9g} to {after:.9g} s at frame {back[0] + 1}"
        raise faults.error(
            file, problem, "Sort the frames of all arrays by time and drop those that are doubled"
        )
    gaps = np.flatnonzero(inside & (steps * rate_hz > LONGEST_STEP))
    if gaps.size:
        problem = (
            f"{gaps.size} gaps inside trials, first {1e3 * steps[gaps[0]]:.4g} ms before frame {gaps[0] + 1} of trial "
            f"{trial[gaps[0]]}, where a frame takes {1e3 / rate_hz:.4g} ms"
        )
        raise faults.error(file, problem, "Start a new trial there in trial.npy, for a segment has no gap")
    step = float(np.median(steps[inside])) if inside.any() else 1 / rate_hz
    if abs(step * rate_hz - 1) > RATE_TOLERANCE:
        problem = (
            f"the median step is {1e3 * step:.4g} ms, that is {1 / step:.5g} Hz, and rate_hz is {rate_hz:g}"
        )
        raise faults.error(file, problem, "Write the rate_hz of the recording, and seconds")
