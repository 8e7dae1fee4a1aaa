"""Two-dimensional correlation with zero padding, as a convolution and as a matrix product."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.backend import prefers_products

LAYOUT = ("NHWC", "HWIO", "NHWC")


def correlate(
    x: Float[Array, "S H W *B C"], kernel: Float[Array, "k k i O"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "S h w *B O"]:
    """Correlates images with odd k x k kernels, zero padding k // 2, keeping every `stride`-th sample from 0.

    Args:
      x: images; further batch axes may stand between pixels and channels.
      groups: 1 mixes all C channels (i = C); C treats each channel alone (i = 1, O = C).

    Returns:
      h = ceil(H / stride), w = ceil(W / stride); output sample i is centred on pixel i * stride.
    """
    plan = correlate_by_product if prefers_products() else correlate_by_convolution
    return plan(x, kernel, stride=stride, groups=groups)


def correlate_by_convolution(
    x: Float[Array, "S H W *B C"], kernel: Float[Array, "k k i O"], *, stride: int, groups: int
) -> Float[Array, "S h w *B O"]:
    """Computes `correlate` by the backend's convolution: the form for accelerators."""
    batch = (x.shape[0], *x.shape[3:-1])
    images = jnp.moveaxis(x, (1, 2), (-3, -2)).reshape(-1, *x.shape[1:3], x.shape[-1])
    result = jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        [(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(result.reshape(*batch, *result.shape[1:]), (-3, -2), (1, 2))


def correlate_by_product(
    x: Float[Array, "S H W *B C"], kernel: Float[Array, "k k i O"], *, stride: int, groups: int
) -> Float[Array, "S h w *B O"]:
    """Computes `correlate` as one matrix product of the kernel with shifted images: the form for CPUs."""
    size, (height, width), channels = kernel.shape[0], x.shape[1:3], x.shape[-1]
    half = size // 2
    margin = [(0, 0), (0, 0), (half, half), (half, half), *[(0, 0)] * (x.ndim - 4)]
    padded = jnp.pad(jnp.moveaxis(x, -1, 0), margin)
    across = jnp.stack([padded[:, :, :, i : i + width : stride] for i in range(size)])
    patches = jnp.stack([across[:, :, :, i : i + height : stride] for i in range(size)])
    output = (*patches.shape[3:], kernel.shape[3])
    if groups == 1:
        flat = patches.reshape(size * size * channels, -1)
        product = jnp.einsum("kp,ko->po", flat, kernel.reshape(flat.shape[0], -1), precision="highest")
        return product.reshape(output)
    flat = patches.reshape(size * size, channels, -1)
    weights = kernel.reshape(size * size, channels)
    return jnp.einsum("kcp,kc->pc", flat, weights, precision="highest").reshape(output)
