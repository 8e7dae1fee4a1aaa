"""Sessions that stay on the device: bytes in memory, segments gathered inside the compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from polarjax.core import Batch
from polarjax.data.assemble import Layout, Segments, batch_of, corners, recorded
from polarjax.data.retina import WindowGeometry, cut_patches
from polarjax.data.segments import Cut
from polarjax.data.sessions import Session

Arrays = dict[str, np.ndarray]


def load(session: Session, kept: Bool[np.ndarray, " N"]) -> Arrays:
    """Returns the arrays of a session that live on every device.

    Args:
      session: open session.
      kept: True at the units that are scored.
    """
    every = slice(None)
    arrays = {
        "movie": np.array(session.movie),
        "frame_index": np.array(session.frame_index),
        "gaze": np.array(session.gaze),
        "spikes": np.array(session.spikes),
        "valid": recorded(session, kept, every),
    }
    return {**arrays, "corner": corners(session, every)} if session.window else arrays


def make_fetch(layout: Layout) -> Callable[[Any, Any], Batch]:
    """Returns (resident, request) -> Batch, pure, to be traced inside the compiled step."""

    def fetch(resident: Any, request: Any) -> Batch:
        resident, request = jax.tree.map(jnp.asarray, (resident, request))
        start, stop = (request[name].reshape(-1, len(resident)) for name in ("start", "stop"))
        parts = [
            _gather(arrays, layout.windows[index], layout.cut, start[:, index], stop[:, index])
            for index, arrays in enumerate(resident)
        ]
        return batch_of(layout, parts, request["counted"])

    return fetch


def _gather(
    arrays: dict[str, Array],
    window: WindowGeometry | None,
    cut: Cut,
    start: Int[Array, " b"],
    stop: Int[Array, " b"],
) -> Segments:
    frame = jnp.minimum(start[:, None] + jnp.arange(cut.length, dtype=jnp.int32)[None], stop[:, None] - 1)
    image_index, gaze = _take(arrays["frame_index"], frame), _take(arrays["gaze"], frame)
    if window is None:
        image, corner = _take(arrays["movie"], image_index), jnp.zeros(gaze.shape, jnp.int32)
    else:
        corner = _take(arrays["corner"], frame)
        image = cut_patches(
            arrays["movie"], image_index.reshape(-1), corner.reshape(-1, 2), window.patch_shape
        )
        image = image.reshape(*frame.shape, *image.shape[1:])
    bins = frame[:, cut.burn_in :]
    return Segments(image, corner, gaze, _take(arrays["spikes"], bins), _take(arrays["valid"], bins))


def _take(values: Num[Array, "T ..."], index: Int[Array, "..."]) -> Num[Array, "..."]:
    return values.at[index].get(mode="clip")
