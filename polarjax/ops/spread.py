"""Penalties that keep codes from collapsing, behind one signature: (z [n, d], key) -> what is minimised.

The rows are those of a micro-batch; `coding_rate` says why that is what a step wants.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.coding_rate import coding_rate

VARIANCE_FLOOR = 1e-4
FARTHEST_KNOT, N_KNOTS = 5.0, 17


def rate_penalty(z: Float[Array, "n d"], key: Array | None = None) -> Float[Array, ""]:
    """Returns -R of `coding_rate` with its defaults; without a use for the key."""
    del key
    return -coding_rate(z)


def variance_covariance(
    z: Float[Array, "n d"],
    key: Array | None = None,
    *,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Float[Array, ""]:
    """Returns v mean_j max(0, 1 - sqrt(var_j + 1e-4)) + c sum_{i != j} C_ij^2/d.

    Both moments divide by n - 1. Columns are pushed to a deviation of 1 and not to the same one twice. At exact
    collapse it is 0.99 v, and its gradient is 0.

    Args:
      z: codes as they are, neither normalised nor centred; n >= 2.
      variance_weight, covariance_weight: v and c.

    Source: Bardes, Ponce & LeCun (2022), VICReg, eq. 1 and 4.
    """
    del key
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    n, d = z.shape
    z = z - z.mean(0, keepdims=True)
    covariance = jnp.matmul(z.T, z, precision="highest") / (n - 1)
    deviation = jnp.sqrt(jnp.diagonal(covariance) + VARIANCE_FLOOR)
    hinge = jnp.maximum(0, 1 - deviation).mean()
    shared = jnp.square(jnp.where(jnp.eye(d, dtype=bool), 0, covariance)).sum() / d
    return variance_weight * hinge + covariance_weight * shared


def sliced_gaussian(z: Float[Array, "n d"], key: Array, *, n_slices: int = 256) -> Float[Array, ""]:
    """Returns how far random projections of the codes are from standard normal: SIGReg.

        mean over slices a of  n int |phi_a(t) - e^(-t^2/2)|^2 e^(-t^2/2) dt,   phi_a(t) = mean_n e^(i t a.z_n)

    The integral is over [-5, 5], by the trapezoidal rule at 2 x 17 - 1 knots. Normal codes have sqrt(2 pi) (1 - 3^-1/2)
    = 1.06 on average, whatever n is; codes that are all 0 have 0.41 n.

    Args:
      z: codes as they are, neither normalised nor centred.
      key: of the directions, uniform on the sphere.

    Source: Epps & Pulley (1983); Balestriero & LeCun (2025), LeJEPA.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    directions = jax.random.normal(key, (z.shape[1], n_slices), z.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    return gaussian_distance(jnp.matmul(z, directions, precision="highest")).mean()


def gaussian_distance(x: Float[Array, "n K"]) -> Float[Array, " K"]:
    """Returns the Epps-Pulley statistic of every column of samples against the standard normal distribution.

    The knots are 0.31 apart, so that samples 20 apart look like one: it bounds what outliers count.
    """
    step = FARTHEST_KNOT / (N_KNOTS - 1)
    total = jnp.zeros(x.shape[1], x.dtype)
    # A knot at a time: the angles of all knots at once would be 17 times the codes.
    for knot in range(N_KNOTS):
        t = step * knot
        normal = math.exp(-(t**2) / 2)
        error = (jnp.cos(t * x).mean(0) - normal) ** 2 + jnp.sin(t * x).mean(0) ** 2
        # Knots at -t are those at t; 0 and the farthest have one neighbour within [0, 5].
        total += (step if knot in (0, N_KNOTS - 1) else 2 * step) * normal * error
    return len(x) * total


PENALTIES = {
    "coding_rate": rate_penalty,
    "variance_covariance": variance_covariance,
    "sliced_gaussian": sliced_gaussian,
}
