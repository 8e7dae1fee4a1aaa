"""Retinal windows out of whole scenes: what the eye sees where it points.

A window is axis-aligned, so bilinear sampling is separable: rows @ patch @ columns^T with hat-function
weights. Luminance outside the scene is 127, which is 0 after normalisation, so pixels that are not there
simply get no weight.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

GREY = 127.0
CONTRAST_SCALE = 255.0


@dataclasses.dataclass(frozen=True)
class WindowGeometry:
    """How windows lie on scenes.

    The centre of a scene is gaze (0, 0); x points right and y up, so rows decrease with y.

    Attributes:
      scene_shape: (rows, columns) of the scenes.
      window_shape: (H, W) of the windows.
      scene_pixels_per_degree: of the scenes.
      window_pixels_per_degree: of the windows.
    """

    scene_shape: tuple[int, int]
    window_shape: tuple[int, int]
    scene_pixels_per_degree: float
    window_pixels_per_degree: float

    @property
    def zoom(self) -> float:
        """Scene pixels from one window pixel to the next."""
        return self.scene_pixels_per_degree / self.window_pixels_per_degree

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Whole scene pixels that hold a window at any sub-pixel gaze, at most the scene."""
        rows, columns = (math.floor((size - 1) * self.zoom + 2) + 2 for size in self.window_shape)
        return min(rows, self.scene_shape[0]), min(columns, self.scene_shape[1])

    @property
    def origin(self) -> tuple[float, float]:
        """Row and column, in scene pixels, of the window's first pixel at gaze (0, 0)."""
        pairs = zip(self.scene_shape, self.window_shape, strict=True)
        rows, columns = ((scene - 1) / 2 - (window - 1) / 2 * self.zoom for scene, window in pairs)
        return rows, columns


def patch_corner(gaze: Num[np.ndarray, "*lead 2"], geometry: WindowGeometry) -> Int[np.ndarray, "*lead 2"]:
    """Returns the first row and column of the patch that holds each window; patches never leave the scene.

    Args:
      gaze: degrees, x right and y up, finite.
      geometry: how windows lie on scenes.
    """
    gaze = np.asarray(gaze, np.float64) * geometry.scene_pixels_per_degree
    first = np.floor(
        np.stack([geometry.origin[0] - gaze[..., 1], geometry.origin[1] + gaze[..., 0]], axis=-1)
    )
    last = np.subtract(geometry.scene_shape, geometry.patch_shape)
    return np.clip(first, 0, last).astype(np.int32)


def _hat_weights(
    displacement: Float[Array, " B"],
    corner: Int[Array, " B"],
    origin: float,
    zoom: float,
    window: int,
    patch: int,
) -> Float[Array, "B window patch"]:
    """Bilinear weights of one axis. Whole pixels go first: large coordinates would cost float32 its precision."""
    whole = math.floor(origin)
    first = displacement - (corner - whole).astype(jnp.float32) + np.float32(origin - whole)
    offsets = np.arange(window)[:, None] * zoom - np.arange(patch)[None, :]
    distance = first[:, None, None] + jnp.asarray(offsets, jnp.float32)[None]
    return jnp.maximum(1.0 - jnp.abs(distance), 0.0)


def render_windows(
    patch: Num[Array, "B P Q C"],
    corner: Int[Array, "B 2"],
    gaze: Float[Array, "B 2"],
    geometry: WindowGeometry,
) -> Float[Array, "B H W C"]:
    """Samples the retinal window bilinearly out of a patch of the scene.

    Args:
      patch: luminance 0..255 of `geometry.patch_shape` scene pixels.
      corner: first row and column of the patch in its scene, as `patch_corner` gives it.
      gaze: degrees, x right and y up; the result is differentiable in it.
      geometry: how windows lie on scenes.

    Returns:
      (luminance - 127)/255; 0 outside the scene.
    """
    displacement = gaze * np.float32(geometry.scene_pixels_per_degree)
    (height, width), (rows, columns) = geometry.window_shape, patch.shape[1:3]
    zoom = geometry.zoom
    row_weights = _hat_weights(-displacement[:, 1], corner[:, 0], geometry.origin[0], zoom, height, rows)
    column_weights = _hat_weights(displacement[:, 0], corner[:, 1], geometry.origin[1], zoom, width, columns)
    contrast = normalise(patch)
    exact = jax.lax.Precision.HIGHEST
    narrow = jnp.einsum("bhp,bpqc->bhqc", row_weights, contrast, precision=exact)
    return jnp.einsum("bwq,bhqc->bhwc", column_weights, narrow, precision=exact)


def cut_patches(
    scenes: Num[Array, "F Hs Ws C"],
    scene: Int[Array, " B"],
    corner: Int[Array, "B 2"],
    patch_shape: tuple[int, int],
) -> Num[Array, "B P Q C"]:
    """Cuts one patch of scene number `scene` at each corner."""
    size = (1, *patch_shape, scenes.shape[3])

    def cut(index: Int[Array, ""], first: Int[Array, " 2"]) -> Num[Array, "P Q C"]:
        return jax.lax.dynamic_slice(scenes, (index, first[0], first[1], 0), size)[0]

    return jax.vmap(cut)(scene, corner)


def render_scenes(
    scenes: Num[Array, "F Hs Ws C"],
    scene: Int[Array, " B"],
    gaze: Float[Array, "B 2"],
    geometry: WindowGeometry,
) -> Float[Array, "B H W C"]:
    """Renders windows at any gaze, also one changed afterwards (stabilised, scaled, shuffled).

    The result is differentiable in gaze.

    Args:
      scenes: luminance 0..255.
      scene: which scene is on the screen.
      gaze: degrees, x right and y up.
      geometry: how windows lie on scenes.

    Returns:
      (luminance - 127)/255; 0 outside the scene.
    """
    pixels = jax.lax.stop_gradient(gaze) * np.float32(geometry.scene_pixels_per_degree)
    origin = jnp.asarray(geometry.origin, jnp.float32)[None]
    first = jnp.floor(origin + jnp.stack([-pixels[:, 1], pixels[:, 0]], axis=-1)).astype(jnp.int32)
    last = jnp.asarray(np.subtract(geometry.scene_shape, geometry.patch_shape), jnp.int32)[None]
    corner = jnp.clip(first, 0, last)
    return render_windows(cut_patches(scenes, scene, corner, geometry.patch_shape), corner, gaze, geometry)


def normalise(luminance: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns (luminance - 127)/255 of luminance 0..255; cast first, since 200 - 250 of bytes is 206."""
    return (luminance.astype(jnp.float32) - GREY) / CONTRAST_SCALE
