"""What the gaze of a session tells about itself: its unit, lost frames, and numbers that stand for a blink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Num

from polarjax.data.arrays import Faults

SLOWEST_MEDIAN_DEG_S, FASTEST_MEDIAN_DEG_S = 0.1, 30.0
REPEATED_SHARE = 0.005


def check_gaze_speed(
    folder: Path,
    gaze: Num[np.ndarray, "T 2"],
    trial: Int[np.ndarray, " T"],
    rate_hz: float,
    per_degree: float,
) -> None:
    """Raises a DataError where a moving eye is half of the time faster or slower than eyes are: the unit is wrong.

    Steps of length 0 do not count: an eye may be at rest (an anaesthetised animal) or held where it was lost.

    Args:
      folder: the session folder, for messages.
      gaze: degrees, finite.
      trial: number of the trial of each frame; steps from one to the next are no movement.
      rate_hz: frames per second.
      per_degree: pixels per degree of the stored movie, for what the numbers would mean in pixels.
    """
    step = np.linalg.norm(np.diff(gaze, axis=0), axis=1)[np.diff(trial) == 0]
    moving = step[step > 0]
    speed = float(np.median(moving)) * rate_hz if moving.size else SLOWEST_MEDIAN_DEG_S
    if not SLOWEST_MEDIAN_DEG_S <= speed <= FASTEST_MEDIAN_DEG_S:
        other, unit = (speed / per_degree, "pixels") if speed > 1 else (float(np.rad2deg(speed)), "radians")
        problem = (
            f"the median speed is {speed:.3g} deg/s as stored, and {other:.3g} deg/s if the values are {unit}; "
            f"expected {SLOWEST_MEDIAN_DEG_S:g} to {FASTEST_MEDIAN_DEG_S:g} deg/s, or an eye at rest"
        )
        raise Faults(folder).error("gaze.npy", problem, "Write degrees, and the rate_hz of the recording")


def gaze_notes(
    gaze: Num[np.ndarray, "T 2"], scored: Bool[np.ndarray, " T"], movie_held: int, has_units: bool
) -> tuple[str, ...]:
    """Returns what a reader should know of the gaze as stored, and how many frames of movie are held.

    Args:
      gaze: as stored, before anything is held.
      scored: True where some unit of the bin is valid; without units, where gaze and image are finite.
      movie_held: number of frames whose image is not finite.
      has_units: False for a session without spikes.
    """
    lost_in, repeated_in = ("invalid bins", " of valid bins") if has_units else ("frames of no segment", "")
    lost = int((~np.isfinite(gaze).all(axis=1)).sum())
    notes = tuple(
        f"{count} of {len(gaze)} frames of non-finite {name}, in {lost_in}, are held at the last finite one"
        for name, count in (("gaze", lost), ("stimulus", movie_held))
        if count
    )
    repeated = np.flatnonzero((gaze[1:] == gaze[:-1]).all(axis=1) & scored[1:]) + 1
    share = len(repeated) / len(gaze)
    if share > REPEATED_SHARE and np.ptp(gaze[np.isfinite(gaze).all(axis=1)], axis=0).any():
        x, y = gaze[repeated[0]].tolist()
        remedy = "set valid False" if has_units else "write NaN"
        notes += (
            f"{len(repeated)} frames{repeated_in} ({share:.1%}) repeat the gaze of the frame before, first at frame "
            f"{repeated[0]} with ({x:g}, {y:g}); where a number stands for a blink, {remedy}",
        )
    return notes
