"""Maps averaged over a coarse grid of places."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def coarse_grid(maps: Float[Array, "B h w D"], size: int) -> Float[Array, "B size size D"]:
    """Returns the means over size x size cells that cover the maps.

    Cell i of h rows spans rows floor(i h/size) to ceil((i + 1) h/size) - 1: where the size does not divide h,
    neighbouring cells share a row, and maps smaller than the grid are repeated.

    Source: PyTorch, adaptive_avg_pool2d.
    """
    rows, columns = (jnp.asarray(_shares(length, size), maps.dtype) for length in maps.shape[1:3])
    return jnp.einsum("ih,jw,bhwd->bijd", rows, columns, maps, precision="highest")


def _shares(length: int, size: int) -> Float[np.ndarray, "size length"]:
    shares = np.zeros((size, length))
    for cell in range(size):
        first, end = cell * length // size, math.ceil((cell + 1) * length / size)
        shares[cell, first:end] = 1 / (end - first)
    return shares
