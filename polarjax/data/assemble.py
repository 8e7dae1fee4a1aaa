"""Segments to batches on the device: what both storages share, so that their batches are equal bit for bit."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from polarjax.core import Batch
from polarjax.data.retina import WindowGeometry, normalise, patch_corner, render_windows
from polarjax.data.segments import Cut
from polarjax.data.sessions import Session


class Segments(NamedTuple):
    """b segments of one session as stored: windows, or patches of scenes with their corners.

    Attributes:
      image: luminance 0..255, any stored type.
      corner: first row and column of each patch in its scene; 0 for windows.
      gaze: degrees.
      spikes: counts of the predicted bins, any stored type.
      valid: 1 where the count was recorded.
    """

    image: Num[Array, "b T P Q C"]
    corner: Int[Array, "b T 2"]
    gaze: Float[Array, "b T 2"]
    spikes: Num[Array, "b n N"]
    valid: Num[Array, "b n N"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is known of the sessions when the step is compiled.

    Attributes:
      windows: of each session; None where it stores windows.
      units: of each session; 0 of one without spikes.
      frame_shape: (H, W, C) of the windows.
      cut: length of the segments.
    """

    windows: tuple[WindowGeometry | None, ...]
    units: tuple[int, ...]
    frame_shape: tuple[int, int, int]
    cut: Cut

    @property
    def max_units(self) -> int:
        """N, to which sessions with fewer units are padded."""
        return max(self.units)


def recorded(
    session: Session, kept: Shaped[np.ndarray, " N"], rows: slice | np.ndarray
) -> Num[np.ndarray, "rows N"]:
    """Returns where the counts of these frames may be scored, as bytes 0 or 1."""
    valid = np.asarray(session.valid[rows])
    return (valid & kept.reshape((1,) * (valid.ndim - 1) + (-1,))).astype(np.uint8)


def corners(session: Session, rows: slice | np.ndarray) -> Int[np.ndarray, "*rows 2"]:
    """Returns the corner of the patch that is cut at each of these frames; 0 where the session stores windows."""
    gaze = np.asarray(session.gaze[rows])
    return patch_corner(gaze, session.window) if session.window else np.zeros(gaze.shape, np.int32)


def batch_of(layout: Layout, parts: list[Segments], counted: Float[Array, "B n"]) -> Batch:
    """Interleaves the sessions' segments: example i of the batch is segment i // S of session i % S.

    Args:
      layout: windows and units of the sessions.
      parts: the segments of each session.
      counted: weight of each predicted bin.
    """
    # without the barrier XLA fuses each storage's reading into the rendering, and bits may differ
    parts = jax.lax.optimization_barrier(parts)
    counted = counted.reshape(-1, len(parts), layout.cut.predicted)
    pieces = [_decode(layout, index, part, counted[:, index]) for index, part in enumerate(parts)]
    stacked = [jnp.stack(values, axis=1) for values in zip(*pieces, strict=True)]
    # Not reshape(-1, ..): where no session has units, the arrays of counts hold nothing to divide.
    return Batch(*(values.reshape(len(values) * len(parts), *values.shape[2:]) for values in stacked))


def _decode(layout: Layout, index: int, part: Segments, counted: Float[Array, "b n"]) -> Batch:
    valid = part.valid.astype(jnp.float32) * counted[..., None]
    spikes = jnp.where(valid > 0, part.spikes.astype(jnp.float32), 0.0)
    missing = ((0, 0), (0, 0), (0, layout.max_units - valid.shape[2]))
    gaze = part.gaze.astype(jnp.float32)
    return Batch(_stimulus(layout, index, part), gaze, jnp.pad(spikes, missing), jnp.pad(valid, missing))


def _stimulus(layout: Layout, index: int, part: Segments) -> Float[Array, "b T H W C"]:
    window = layout.windows[index]
    rows, columns = window.patch_shape if window else layout.frame_shape[:2]
    image, frames = part.image[:, :, :rows, :columns], part.image.shape[:2]
    if window is None:
        return normalise(image)
    image, corner, gaze = (
        values.reshape(-1, *values.shape[2:]) for values in (image, part.corner, part.gaze)
    )
    rendered = render_windows(image, corner, gaze, window)
    return rendered.reshape(*frames, *rendered.shape[1:])
