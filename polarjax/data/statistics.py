"""What a model is initialised with: mean count of each unit, and where its counts follow the local contrast.

The position is the peak of the correlation of counts with local oriented energy (squared derivatives of a
band-passed window, two scales, four orientations, blurred, logarithm, half the resolution) over frames of the
training tier. It is a start for a fit, not a measured receptive field.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from polarjax.data.checks import chunks
from polarjax.data.few_trials import left_out_trials
from polarjax.data.retina import WindowGeometry, normalise, render_windows
from polarjax.data.segments import trial_bounds
from polarjax.data.sessions import Session
from polarjax.data.streamed import read_segment

ENERGY_FLOOR = 1e-5
METHOD = 2
"""Raised when the estimates change, so that cached ones are not used."""
MOST_FRAMES = 6000
FRAMES_AT_A_TIME = 256
MEMORY_S = 0.1
STEP_PIXELS = 2
SCALES = (1.5, 3.0)
ORIENTATIONS = 4
BLUR_PIXELS = 3.0
LEAST_DEVIATION = 0.3
"""Of the largest deviation of energy: places that hardly change (a blank border) cannot stand out."""
SHIFTS = 3
CERTAIN, UNCERTAIN = 6.0, 4.0
"""Peaks in standard deviations of the null: from the first on taken as they are, up to the second as (0, 0)."""


class Statistics(NamedTuple):
    """Mean count per bin of each unit, and its position, degrees from the centre of the window, x right and y up."""

    mean_count: tuple[float, ...]
    position_deg: tuple[tuple[float, float], ...]


def session_statistics(session: Session, cache: Path) -> Statistics:
    """Returns the statistics of the training tier, from `cache` where they were computed before.

    Args:
      session: open session.
      cache: folder of the cache; one that cannot be written is not used.
    """
    if not session.unit_ids:
        return Statistics((), ())
    left_out = left_out_trials(session).tolist()
    choice = f"-{hashlib.sha256(repr(left_out).encode()).hexdigest()[:12]}" if left_out else ""
    file = cache / "statistics" / f"{session.fingerprint}{choice}.json"
    key = {
        "method": METHOD,
        "window": repr(session.window),
        "rate_hz": session.rate_hz,
        "scale": session.pixels_per_degree,
        **({"left_out": left_out} if left_out else {}),
    }
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["key"] == key and len(stored["mean_count"]) == len(session.unit_ids):
            return Statistics(tuple(stored["mean_count"]), tuple((x, y) for x, y in stored["position_deg"]))
    found = Statistics(mean_count(session), positions(session))
    with contextlib.suppress(OSError):
        replace_file(file, json.dumps({"key": key, **found._asdict()}).encode())
    return found


def replace_file(file: Path, content: bytes) -> None:
    """Writes a file of the cache beside its place and moves it there, so that no reader sees half of one.

    Raises:
      OSError: the cache cannot be written; nothing is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            temporary.write(content)
        os.replace(name, file)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def mean_count(session: Session) -> tuple[float, ...]:
    """Returns the mean count per bin of each unit over the valid bins of the training tier; 0 where there is none."""
    total, bins = np.zeros((2, len(session.unit_ids)))
    for rows in chunks(len(session.spikes)):
        scored = np.asarray(session.valid[rows]) & (np.asarray(session.tier[rows]) == 0)[:, None]
        scored = np.broadcast_to(scored, session.spikes[rows].shape)
        total += np.where(scored, session.spikes[rows], 0).sum(axis=0, dtype=np.float64)
        bins += scored.sum(axis=0)
    return tuple((total / np.maximum(bins, 1)).tolist())


def positions(session: Session) -> tuple[tuple[float, float], ...]:
    """Returns for each unit where in the window its counts follow the local energy.

    Positions are in degrees from the centre of the window, x right and y up; (0, 0) where no place stands out.
    """
    frames = _sample(session)
    if len(frames) < 2 * SHIFTS:
        return ((0.0, 0.0),) * len(session.unit_ids)
    counts, scored = _counts_after(session, frames)
    maps = _correlation(session, frames, _standardised(counts, scored))
    maps = maps.reshape(maps.shape[0], maps.shape[1], 1 + SHIFTS, -1)
    spread = np.sqrt(np.mean(np.square(maps[:, :, 1:]), axis=(0, 1, 2)))
    score = (maps[:, :, 0] / np.maximum(spread, 1e-12)[None, None]).max(axis=0)
    return tuple(_peak(unit.reshape(_sides(session)), session) for unit in score.T)


def _sample(session: Session) -> Int[np.ndarray, " frames"]:
    """Returns the training frames, evenly thinned, that a valid bin follows within the memory of the correlation."""
    scored = np.asarray(session.valid).any(axis=1) & (np.asarray(session.tier) == 0)
    total = np.concatenate([[0], np.cumsum(scored)])
    first = np.arange(len(scored))
    end = np.minimum(first + _memory(session), _trial_end(session))
    frames = np.flatnonzero(total[end] > total[first])
    return frames[:: max(1, -(-len(frames) // MOST_FRAMES))]


def _memory(session: Session) -> int:
    return max(1, round(MEMORY_S * session.rate_hz))


def _trial_end(session: Session) -> Int[np.ndarray, " T"]:
    bounds = trial_bounds(session)
    return np.repeat(bounds[:, 1], bounds[:, 1] - bounds[:, 0])


def _counts_after(
    session: Session, frames: Int[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, "frames N"], Float[np.ndarray, "frames N"]]:
    """Returns the mean valid count over the memory that follows each frame, and how many bins it is of."""
    counts, scored = np.zeros((2, len(frames), len(session.unit_ids)), np.float32)
    end = _trial_end(session)[frames]
    for lag in range(_memory(session)):
        at = np.minimum(frames + lag, end - 1)
        valid = np.broadcast_to(session.valid[at] & (frames + lag < end)[:, None], counts.shape)
        counts += np.where(valid, session.spikes[at], 0)
        scored += valid
    return counts / np.maximum(scored, 1), scored


def _sides(session: Session) -> tuple[int, int]:
    height, width = (-(-size // STEP_PIXELS) for size in session.frame_shape[:2])
    return height, width


def _standardised(
    counts: Float[np.ndarray, "frames N"], scored: Float[np.ndarray, "frames N"]
) -> Float[np.ndarray, "frames shifts_N"]:
    """Returns counts of mean 0 and length 1, and beside them the same shifted in time, for the null."""
    mean = np.where(scored > 0, counts, 0).sum(axis=0) / np.maximum((scored > 0).sum(axis=0), 1)
    centred = np.where(scored > 0, counts - mean[None], 0)
    centred /= np.maximum(np.linalg.norm(centred, axis=0), 1e-12)[None]
    shifts = [len(counts) * k // (SHIFTS + 1) for k in range(SHIFTS + 1)]
    return np.concatenate([np.roll(centred, shift, axis=0) for shift in shifts], axis=1).astype(np.float32)


def _correlation(
    session: Session, frames: Int[np.ndarray, " frames"], counts: Float[np.ndarray, "frames columns"]
) -> Float[np.ndarray, "features places columns"]:
    """Returns the correlation of standardised counts with the energy at each place, read and summed in pieces."""
    everything = np.ones(len(session.unit_ids), bool)
    sums: list[np.ndarray] = []
    for first in range(0, len(frames), FRAMES_AT_A_TIME):
        some = frames[first : first + FRAMES_AT_A_TIME]
        missing = FRAMES_AT_A_TIME - len(some)
        read = read_segment(
            session, everything, np.pad(some, (0, missing), mode="edge"), FRAMES_AT_A_TIME - 1
        )
        weights = np.pad(np.ones(len(some), np.float32), (0, missing))
        of_counts = np.pad(counts[first : first + FRAMES_AT_A_TIME], ((0, missing), (0, 0)))
        piece = _energy_sums(read["image"], read["corner"], read["gaze"], weights, of_counts, session.window)
        sums = [
            np.asarray(value, np.float64) + old for value, old in zip(piece, sums or (0.0,) * 3, strict=True)
        ]
    product, total, square = sums
    variance = np.maximum(square - np.square(total) / len(frames), 0)
    typical = np.square(LEAST_DEVIATION) * variance.max(axis=1, keepdims=True)
    return product / np.sqrt(np.maximum(variance + typical, 1e-12))[..., None]


@functools.partial(jax.jit, static_argnames="window")
def _energy_sums(
    image: Num[Array, "B P Q C"],
    corner: Int[Array, "B 2"],
    gaze: Float[Array, "B 2"],
    weights: Float[Array, " B"],
    counts: Float[Array, "B columns"],
    window: WindowGeometry | None,
) -> tuple[
    Float[Array, "features places columns"], Float[Array, "features places"], Float[Array, "features places"]
]:
    """Returns sums over the frames: energy times counts, energy, its square."""
    energy = _oriented_energy(
        normalise(image) if window is None else render_windows(image, corner, gaze, window)
    )
    product = jnp.einsum("fbp,bn->fpn", energy, counts, precision=jax.lax.Precision.HIGHEST)
    weighted = energy * weights[None, :, None]
    return product, weighted.sum(axis=1), (weighted * energy).sum(axis=1)


def _oriented_energy(stimulus: Float[Array, "B H W C"]) -> Float[Array, "features B places"]:
    luminance, maps = stimulus.mean(axis=3), []
    for scale in SCALES:
        band = _blur(luminance, scale) - _blur(luminance, 2 * scale)
        down, right = (_slope(band, axis) for axis in (1, 2))
        for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
            along = np.float32(np.cos(angle)) * right + np.float32(np.sin(angle)) * down
            maps.append(_blur(jnp.square(along), BLUR_PIXELS, STEP_PIXELS).reshape(len(luminance), -1))
    return jnp.log1p(jnp.stack(maps) / ENERGY_FLOOR)


def _slope(image: Float[Array, "B H W"], axis: int) -> Float[Array, "B H W"]:
    """Central difference along an axis; borders are repeated."""
    size = image.shape[axis]
    after, before = np.minimum(np.arange(size) + 1, size - 1), np.maximum(np.arange(size) - 1, 0)
    return 0.5 * (jnp.take(image, after, axis=axis) - jnp.take(image, before, axis=axis))


def _blur(image: Float[Array, "B H W"], sigma: float, step: int = 1) -> Float[Array, "B rows columns"]:
    height, width = (jnp.asarray(_blur_matrix(size, sigma)[::step]) for size in image.shape[1:])
    return jnp.einsum("ih,bhw,jw->bij", height, image, width)


def _blur_matrix(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
    """Gaussian weights of each pixel; rows sum to 1, so borders do not darken."""
    distance = np.arange(size)[:, None] - np.arange(size)[None, :]
    weights = np.exp(-0.5 * np.square(distance / sigma))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _peak(score: Float[np.ndarray, "rows columns"], session: Session) -> tuple[float, float]:
    """Returns the place of the largest score in degrees, refined by a parabola and shrunk where it is weak."""
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    certainty = float(np.clip((score.max() - UNCERTAIN) / (CERTAIN - UNCERTAIN), 0, 1))
    places = (_refined(score[:, column], int(row)), _refined(score[row], int(column)))
    centre = [(size - 1) / 2 for size in session.frame_shape[:2]]
    below, right = (place * STEP_PIXELS - middle for place, middle in zip(places, centre, strict=True))
    scale = certainty / session.window_pixels_per_degree
    return right * scale, -below * scale


def _refined(line: Float[np.ndarray, " places"], top: int) -> float:
    if top in (0, len(line) - 1):
        return float(top)
    left, middle, right = line[top - 1 : top + 2].tolist()
    bend = left - 2 * middle + right
    return top + (0.5 * (left - right) / bend if bend < 0 else 0.0)
