"""Convolutions over time that see no later frame, in windows (strided) and in segments (dilated)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.convolution import correlate


def hold_first(x: Float[Array, "H W B T C"], n_frames: int) -> Float[Array, "H W B t C"]:
    """Puts n frames like the first before it: nothing moved before the movie began."""
    return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (n_frames, 0), (0, 0)], mode="edge")


def stack_taps(
    x: Float[Array, "H W B T C"], size: int, *, dilation: int = 1, stride: int = 1
) -> Float[Array, "H W B t K"]:
    """Puts the frames that a filter of `size` taps sees side by side, K = size C, the oldest first.

    Returns:
      t = ceil((T - (size - 1) dilation) / stride) frames; frame i has seen up to (size - 1) dilation + i stride.
    """
    length = x.shape[3] - (size - 1) * dilation
    taps = [x[:, :, :, tap * dilation : tap * dilation + length : stride] for tap in range(size)]
    return jnp.concatenate(taps, axis=-1)


def convolve_frames(
    x: Float[Array, "H W B T C"],
    kernel: Float[Array, "K k k C O"],
    *,
    time: tuple[int, int] = (1, 1),
    space: tuple[int, int] = (1, 1),
    padding: int | None = None,
) -> Float[Array, "h w B t O"]:
    """Convolves in time and space: one two-dimensional correlation whose channels are the taps.

        y(t, i) = sum_{tau, j, c} w(tau, j, c) x_c(stride t + dilation tau, stride i + dilation j)

    The image goes on beyond its border as it is there. Time has no border here; see `hold_first`.

    Args:
      time: (dilation, stride) over frames.
      space: (dilation, stride) over pixels.
      padding: pixels beyond the border; None is as many as centre output sample i on pixel i * stride.

    Source: a trous: Holschneider et al. (1989).
    """
    taps, size, _, n_inputs, n_outputs = kernel.shape
    stacked = stack_taps(x, taps, dilation=time[0], stride=time[1])
    spatial = jnp.moveaxis(kernel, 0, 2).reshape(size, size, taps * n_inputs, n_outputs)
    spatial = _dilate(spatial, space[0])
    margin = spatial.shape[0] // 2 if padding is None else padding
    padded = jnp.pad(stacked, [(margin, margin)] * 2 + [(0, 0)] * 3, mode="edge")
    return correlate(padded[None], spatial, stride=space[1], padded=False)[0]


def filter_pixels(x: Float[Array, "H W B T C"], kernel: Float[Array, "K F"]) -> Float[Array, "H W B t D"]:
    """Filters every pixel and channel in time with F filters of K taps, the oldest first; t = T - K + 1, D = C F.

    One product with a banded matrix: the filters are few and long.
    """
    n_frames, taps = x.shape[3], kernel.shape[0]
    lag = np.arange(n_frames)[:, None] - np.arange(n_frames - taps + 1)[None]
    seen = (lag >= 0) & (lag < taps)
    matrix = jnp.where(seen[..., None], kernel[np.clip(lag, 0, taps - 1)], 0)
    filtered = jnp.einsum("hwbtc,tsf->hwbscf", x, matrix, precision="highest")
    return filtered.reshape(*filtered.shape[:4], -1)


def temporal_filters(noise: Float[Array, "K F"]) -> Float[Array, "K F"]:
    """Returns a Gaussian in the middle of K taps, its first and second derivative, and noise; unit norm.

    The Gaussian's standard deviation is a sixth of the taps.

    Args:
      noise: random numbers; beyond the third, filters are noise times the Gaussian.

    Source: scale-space derivatives, Koenderink (1988); the set is that of VisionCore's learned frontend.
    """
    n_taps = len(noise)
    u = (jnp.arange(n_taps) - (n_taps - 1) / 2) / (n_taps / 6)
    gaussian = jnp.exp(-(u**2) / 2)
    shapes = jnp.stack([gaussian, -u * gaussian, (u**2 - 1) * gaussian], axis=-1)
    filters = jnp.concatenate([shapes, noise[:, 3:] * gaussian[:, None]], axis=-1)[:, : noise.shape[1]]
    return filters / jnp.linalg.norm(filters, axis=0, keepdims=True)


def _dilate(kernel: Float[Array, "k k C O"], dilation: int) -> Float[Array, "l l C O"]:
    # zeros between the weights: the form of the correlation for CPUs knows no dilation
    length = (kernel.shape[0] - 1) * dilation + 1
    spread = jnp.zeros((length, length, *kernel.shape[2:]), kernel.dtype)
    return kernel if dilation == 1 else spread.at[::dilation, ::dilation].set(kernel)
