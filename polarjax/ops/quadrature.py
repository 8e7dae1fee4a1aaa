"""Quadrature pairs of spatial filters: the even and the odd response of the same place (Adelson & Bergen 1985)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.convolution import correlate
from polarjax.ops.products import project


def separable_quadrature(
    x: Float[Array, "S H W *B C"],
    spatial: Float[Array, "k k 1 C"],
    mixing: Float[Array, "C M"],
    bias: Float[Array, " M"],
    *,
    stride: int = 1,
) -> Float[Array, "S h w *B M"]:
    """Filters each channel alone, then mixes channels into M maps: one of the two members of the reference's pairs.

    With C = 1 all M maps are affine copies of one filter: the bank has rank 1 whatever M is.

    Source: VisionCore's Polar-V1; Adelson & Bergen (1985) for the pair.
    """
    filtered = correlate(x, spatial, stride=stride, groups=x.shape[-1])
    mixed = project(filtered, mixing)
    return mixed + jnp.broadcast_to(bias, mixed.shape)


def dense_quadrature(
    x: Float[Array, "S H W *B C"],
    even_kernel: Float[Array, "k k C M"],
    odd_kernel: Float[Array, "k k C M"],
    *,
    stride: int = 1,
) -> tuple[Float[Array, "S h w *B M"], Float[Array, "S h w *B M"]]:
    """Filters with M full-rank pairs; returns the even and the odd responses (Adelson & Bergen 1985)."""
    return correlate(x, even_kernel, stride=stride), correlate(x, odd_kernel, stride=stride)


def gabor_pairs(
    kernel_size: int, n_pairs: int, n_channels: int, frequency: float
) -> tuple[np.ndarray, np.ndarray]:
    """Makes Gabor quadrature pairs of M equally spaced orientations, each of unit norm and zero mean.

    Args:
      kernel_size: k, odd, in pixels of the level.
      frequency: carrier, cycles/pixel of the level, in (0, 0.5).

    Returns:
      (even, odd), each [k, k, C, M]; the carrier of pair m points along (cos(pi m/M), sin(pi m/M)) in (x, y).

    Source: Gabor pairs as in Adelson & Bergen (1985); envelope of standard deviation k/5 pixels.
    """
    offsets = np.arange(kernel_size) - kernel_size // 2
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    angle = np.pi * np.arange(n_pairs) / n_pairs
    carrier = 2 * np.pi * frequency * (x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle))
    envelope = np.exp(-(x**2 + y**2) / (2 * (kernel_size / 5) ** 2))[..., None]

    def unit(pair: np.ndarray) -> np.ndarray:
        centred = pair - envelope * pair.sum((0, 1)) / envelope.sum((0, 1))
        scaled = centred / np.linalg.norm(centred, axis=(0, 1)) / np.sqrt(n_channels)
        return np.repeat(scaled[:, :, None], n_channels, axis=2)

    return unit(envelope * np.cos(carrier)), unit(envelope * np.sin(carrier))
