"""Amplitude and pose of a quadrature pair, without angles: arctan2 and complex norms have NaN gradients at 0."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.inverse_root import inverse_root, root

AMPLITUDE_FLOOR = 1e-3


def decompose(
    even: Float[Array, "*S"], odd: Float[Array, "*S"], *, pose_floor: float = AMPLITUDE_FLOOR
) -> tuple[Float[Array, "*S"], Float[Array, "*S"], Float[Array, "*S"]]:
    """Splits a quadrature pair into its amplitude and its pose on the unit circle.

        A = sqrt(max(e^2 + o^2, 1e-6)),   U = (e, o) / sqrt(max(e^2 + o^2, pose_floor^2))

    Computed in float32 at least. Where the response is below the floor the pose shrinks to 0 with a gradient of
    at most 1/pose_floor, so a blank frame stays finite.

    Args:
      pose_floor: 1e-3 makes U = (e, o)/A; the reference uses 1e-6.

    Returns:
      (A, U_even, U_odd).

    Source: Polar-V1.
    """
    dtype = jnp.promote_types(even.dtype, jnp.float32)
    even, odd = even.astype(dtype), odd.astype(dtype)
    power = even * even + odd * odd
    amplitude = root(jnp.maximum(power, AMPLITUDE_FLOOR**2))
    scale = inverse_root(jnp.maximum(power, pose_floor**2))
    return amplitude, even * scale, odd * scale


def safe_normalize(
    even: Float[Array, "*S"], odd: Float[Array, "*S"], floor: float = AMPLITUDE_FLOOR
) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
    """Projects (e, o) onto the unit circle: divides by sqrt(max(e^2 + o^2, floor^2)), finite at 0."""
    scale = inverse_root(jnp.maximum(even * even + odd * odd, floor**2))
    return even * scale, odd * scale


def observe(even: Float[Array, "*S"], odd: Float[Array, "*S"], *, pose_floor: float) -> tuple:
    """Returns e, o and their power; A and U as `decompose` makes them; and what the gradient needs, 1/A and U/(e, o).

    A is the power over its root, so that one root is enough where both floors are the same.
    """
    power = even * even + odd * odd
    bounded = jnp.maximum(power, AMPLITUDE_FLOOR**2)
    inverse = inverse_root(bounded)
    scale = inverse_root(jnp.maximum(power, pose_floor**2))
    return (even, odd, power), bounded * inverse, (even * scale, odd * scale), inverse, scale


def slopes_of_pair(
    seen: tuple, of_amplitude: Float[Array, "*S"], of_pose: Sequence[Float[Array, "*S"]], *, pose_floor: float
) -> list[Float[Array, "*S"]]:
    """Returns the slopes of e and o from those of A and U: the gradient of `decompose`.

    Args:
      seen: what `observe` returns.
    """
    (even, odd, power), _, pose, inverse, scale = seen
    along = pose[0] * of_pose[0] + pose[1] * of_pose[1]
    along = jnp.where(power > pose_floor**2, along, 0)
    radial = jnp.where(power > AMPLITUDE_FLOOR**2, of_amplitude * inverse, 0)
    return [
        scale * (slope - unit * along) + radial * x
        for slope, unit, x in zip(of_pose, pose, (even, odd), strict=True)
    ]
