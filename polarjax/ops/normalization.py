"""Normalisations of feature maps: by the root mean square over channels, by the moments of groups of channels."""

from __future__ import annotations

from jaxtyping import Array, Float

from polarjax.ops.inverse_root import inverse_root

EPSILON = 1e-5
MOST_GROUPS = 32


def rms_norm(
    x: Float[Array, "*B C"], scale: Float[Array, " C"], shift: Float[Array, " C"]
) -> Float[Array, "*B C"]:
    """Divides by the root mean square over channels: scale x / sqrt(mean_c x^2 + 1e-5) + shift.

    Source: Zhang & Sennrich (2019), with the shift of VisionCore's ResNet.
    """
    inverse = inverse_root((x**2).mean(-1, keepdims=True) + EPSILON)
    return _per_channel(x * inverse, scale, shift)


def n_groups(hidden: int) -> int:
    """Returns the groups of the 3 x hidden channels of the gates: min(32, hidden)."""
    return min(MOST_GROUPS, hidden)


def group_norm(
    x: Float[Array, "H W *B C"], scale: Float[Array, " C"], shift: Float[Array, " C"], *, groups: int
) -> Float[Array, "H W *B C"]:
    """Gives every group of neighbouring channels of an image zero mean and unit variance over pixels and channels.

        scale (x - mean) / sqrt(variance + 1e-5) + shift

    Source: Wu & He (2018), eq. 1 and 2.
    """
    split = x.reshape(*x.shape[:-1], groups, -1)
    over = (0, 1, split.ndim - 1)
    centred = split - split.mean(over, keepdims=True)
    normal = centred * inverse_root((centred**2).mean(over, keepdims=True) + EPSILON)
    return _per_channel(normal.reshape(x.shape), scale, shift)


def _per_channel(x: Array, scale: Array, shift: Array) -> Array:
    shape = (1,) * (x.ndim - 1) + scale.shape
    return x * scale.reshape(shape) + shift.reshape(shape)
