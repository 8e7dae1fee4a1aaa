"""RMS contrast of what the eye sees in every frame of a session, computed once and cached.

    c_t = standard deviation of luminance/255 over the pixels of the window at t

Where windows are cut out of scenes, the pixels are those of the patch that the gaze at t cuts, and the sums over
patches are differences of running sums over the scene: their number costs next to nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Num

from polarjax.data.assemble import corners
from polarjax.data.retina import CONTRAST_SCALE, GREY
from polarjax.data.sessions import Session
from polarjax.data.statistics import replace_file

METHOD = 1
"""Raised when the estimate changes, so that cached ones are not used."""
IMAGES_AT_A_TIME = 256


def session_contrast(session: Session, cache: Path) -> Float[np.ndarray, " T"]:
    """Returns c_t of every frame, from `cache` where it was computed before.

    Args:
      session: open session.
      cache: folder of the cache; one that cannot be written is not used.
    """
    key = hashlib.sha256(repr((METHOD, session.window, session.pixels_per_degree)).encode()).hexdigest()[:12]
    file = cache / "statistics" / f"{session.fingerprint}-contrast-{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored = np.load(file, allow_pickle=False)
        if stored.shape == (len(session.trial),) and stored.dtype == np.float32:
            return stored
    found = frame_contrast(session)
    with contextlib.suppress(OSError):
        content = io.BytesIO()
        np.save(content, found)
        replace_file(file, content.getvalue())
    return found


def frame_contrast(session: Session) -> Float[np.ndarray, " T"]:
    """Returns c_t of every frame; images are read one after the other, so a session may be of any length."""
    found = _of_images(session) if session.window is None else _of_patches(session)
    return (found / CONTRAST_SCALE).astype(np.float32)


def _of_images(session: Session) -> Float[np.ndarray, " T"]:
    index, found = np.asarray(session.frame_index), np.zeros(len(session.movie))
    shown = np.unique(index)
    for first in range(0, len(shown), IMAGES_AT_A_TIME):
        some = shown[first : first + IMAGES_AT_A_TIME]
        found[some] = np.asarray(session.movie[some], np.float64).reshape(len(some), -1).std(axis=1)
    return found[index]


def _of_patches(session: Session) -> Float[np.ndarray, " T"]:
    assert session.window is not None
    index, corner = np.asarray(session.frame_index), corners(session, slice(None))
    found, order = np.zeros(len(index)), np.argsort(index, kind="stable")
    shown, first = np.unique(index[order], return_index=True)
    for image, frames in zip(shown.tolist(), np.split(order, first[1:]), strict=True):
        low, high = corner[frames].min(axis=0), corner[frames].max(axis=0) + session.window.patch_shape
        scene = session.movie[image, low[0] : high[0], low[1] : high[1]]
        found[frames] = patch_deviation(scene, corner[frames] - low[None], session.window.patch_shape)
    return found


def patch_deviation(
    scene: Num[np.ndarray, "Hs Ws C"], corner: Int[np.ndarray, "K 2"], patch_shape: tuple[int, int]
) -> Float[np.ndarray, " K"]:
    """Returns the standard deviation over the pixels of every patch of a scene.

    Args:
      scene: luminance 0..255.
      corner: first row and column of each patch.
      patch_shape: rows and columns of all of them.

    Source: the summed-area table, Crow (1984).
    """
    luminance = np.asarray(scene, np.float64) - GREY
    count = patch_shape[0] * patch_shape[1] * scene.shape[2]
    mean, square = (
        _patch_sums(values.sum(axis=2), corner, patch_shape) / count
        for values in (luminance, np.square(luminance))
    )
    return np.sqrt(np.maximum(square - np.square(mean), 0))


def _patch_sums(
    values: Float[np.ndarray, "Hs Ws"], corner: Int[np.ndarray, "K 2"], patch_shape: tuple[int, int]
) -> Float[np.ndarray, " K"]:
    table = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (top, left), (bottom, right) = corner.T, (corner + np.asarray(patch_shape)[None]).T
    return table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
