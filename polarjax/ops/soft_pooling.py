"""Anti-aliased pooling of feature maps in space, and the gating of channels by their means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.products import project

TEMPERATURE = 10.0
EPSILON = 1e-6


def binomial_blur(x: Float[Array, "H W *B C"]) -> Float[Array, "H W *B C"]:
    """Blurs with [1 2 1]/4 down and across, zeros beyond the border.

    Source: Zhang (2019), "Making convolutional networks shift-invariant again".
    """
    for axis in (0, 1):
        margins = [(int(i == axis),) * 2 for i in range(x.ndim)]
        before, here, after = _shifted(jnp.pad(x, margins), 3, axis)
        x = (before + 2 * here + after) / 4
    return x


def soft_pool(x: Float[Array, "H W *B C"], *, stride: int) -> Float[Array, "h w *B C"]:
    """Averages 2 x 2 pixels with weights e^(x/10): sum x e^(x/10) / (sum e^(x/10) + 4e-6).

    Returns:
      h = (H - 2) // stride + 1; output sample i lies between the pixels i * stride and i * stride + 1.

    Source: SoftPool, Stergiou et al. (2021), with the temperature of VisionCore's ResNet.
    """
    weight = jnp.exp(x / TEMPERATURE)
    return _mean_of_4(x * weight, stride) / (_mean_of_4(weight, stride) + EPSILON)


def squeeze_excite(
    x: Float[Array, "H W *B C"],
    squeeze: tuple[Float[Array, "C R"], Float[Array, " R"]],
    excite: tuple[Float[Array, "R C"], Float[Array, " C"]],
) -> Float[Array, "H W *B C"]:
    """Scales every channel of an image by a gate: x sigma(W2 silu(W1 mean_hw x + b1) + b2).

    Args:
      squeeze: W1 and b1, to R channels.
      excite: W2 and b2.

    Source: Hu et al. (2018).
    """
    gate = jax.nn.silu(_affine(x.mean((0, 1), keepdims=True), *squeeze))
    return x * jax.nn.sigmoid(_affine(gate, *excite))


def _affine(x: Array, kernel: Array, bias: Array) -> Array:
    return project(x, kernel) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def _shifted(x: Array, count: int, axis: int) -> list[Array]:
    size = x.shape[axis] - count + 1
    return [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(count)]


def _mean_of_4(x: Array, stride: int) -> Array:
    for axis in (0, 1):
        first, second = _shifted(x, 2, axis)
        x = jax.lax.slice_in_dim((first + second) / 2, 0, first.shape[axis], stride, axis)
    return x
