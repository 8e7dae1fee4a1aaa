"""Laplacian pyramid of Burt & Adelson (1983), IEEE Trans. Commun. 31:532-540.

Blurring and striding along one axis is linear and the same for every frame, so each axis is one small matrix that
holds the taps, the stride and the reflecting border; a level is two matrix products.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError

TAPS = np.sqrt(2.0) / 16 * np.array([1.0, 4.0, 6.0, 4.0, 1.0])
SMALLEST_SIDE = 3


def largest_n_levels(height: int, width: int) -> int:
    """Returns the largest number of levels of a frame: every level keeps at least 3 samples a side."""
    side, n_levels = min(height, width), 0
    while side >= SMALLEST_SIDE:
        side, n_levels = -(-side // 2), n_levels + 1
    return n_levels


def check_n_levels(height: int, width: int, n_levels: int) -> None:
    """Raises ConfigError where a frame is too small for `n_levels`."""
    largest = largest_n_levels(height, width)
    if not 1 <= n_levels <= largest:
        raise ConfigError(
            f"A frame of {height} x {width} pixels supports at most {largest} pyramid levels, got {n_levels}. "
            "Lower config.model.kwargs.n_levels or use larger frames."
        )


@functools.lru_cache
def downsampling_matrix(n: int, normalized: bool) -> np.ndarray:
    """Returns [ceil(n/2), n]: reflect by 2 (edge not repeated), correlate with the taps, keep samples 0, 2, 4 .."""
    padded = np.pad(np.eye(n), ((2, 2), (0, 0)), mode="reflect")
    blurred = np.sum([tap * padded[k : k + n] for k, tap in enumerate(TAPS)], axis=0)
    return blurred[::2] / (np.sqrt(2.0) if normalized else 1.0)


@functools.lru_cache
def upsampling_matrix(n_from: int, n_to: int, normalized: bool) -> np.ndarray:
    """Returns [n_to, n_from]: extend by a reflected sample, sample j to index 2j + 2 of zeros, correlate, keep n_to."""
    extended = np.pad(np.eye(n_from), ((1, 1), (0, 0)), mode="reflect")
    spread = np.zeros((2 * n_from + 5, n_from))
    spread[: 2 * n_from + 4 : 2] = extended
    blurred = np.sum([tap * spread[k : k + n_to] for k, tap in enumerate(TAPS)], axis=0)
    return blurred * (np.sqrt(2.0) if normalized else 1.0)


def _apply_axes(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    vertical, horizontal = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("yh,...hwc,xw->...yxc", vertical, x, horizontal, precision=jax.lax.Precision.HIGHEST)


def downsample(x: Float[Array, "*B H W C"], *, normalized: bool) -> Float[Array, "*B h w C"]:
    """Blurs and halves: [H, W] -> [ceil(H/2), ceil(W/2)]. DC gain 1 if `normalized`, else 2 (Burt & Adelson 1983)."""
    return _apply_axes(
        x, downsampling_matrix(x.shape[-3], normalized), downsampling_matrix(x.shape[-2], normalized)
    )


def upsample(
    x: Float[Array, "*B h w C"], shape: tuple[int, int], *, normalized: bool
) -> Float[Array, "*B H W C"]:
    """Doubles to `shape` = (H, W), which `downsample` made x from. `normalized` gives DC gain 1, else 1/2."""
    rows = upsampling_matrix(x.shape[-3], shape[0], normalized)
    return _apply_axes(x, rows, upsampling_matrix(x.shape[-2], shape[1], normalized))


def laplacian_pyramid(x: Float[Array, "*B H W C"], n_levels: int, *, normalized: bool) -> list[Array]:
    """Splits images into band-pass levels, finest first, and the low-pass rest as the last level.

        L_l = x_l - up(x_{l+1}),   x_{l+1} = down(x_l),   L_last = x_last

    Args:
      normalized: True for DC gain 1 at every level; False for the taps of sum sqrt(2) both ways, where level l is
        2^l times as large (the reference's convention).

    Returns:
      `n_levels` arrays; level l has ceil(H / 2^l) x ceil(W / 2^l) pixels.

    Raises:
      ConfigError: the frame is too small for `n_levels`.

    Source: Burt & Adelson (1983).
    """
    check_n_levels(x.shape[-3], x.shape[-2], n_levels)
    levels = []
    for _ in range(n_levels - 1):
        coarser = downsample(x, normalized=normalized)
        levels.append(x - upsample(coarser, (x.shape[-3], x.shape[-2]), normalized=normalized))
        x = coarser
    return [*levels, x]


def reconstruct(levels: list[Array], *, normalized: bool) -> Float[Array, "*B H W C"]:
    """Inverts `laplacian_pyramid` exactly: x_l = L_l + up(x_{l+1}) (Burt & Adelson 1983)."""
    x = levels[-1]
    for level in reversed(levels[:-1]):
        x = level + upsample(x, (level.shape[-3], level.shape[-2]), normalized=normalized)
    return x
