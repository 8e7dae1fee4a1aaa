"""Penalties that keep codes from collapsing, behind one signature: (z [n, d], key) -> what is minimised.

Each of them is a function of means over rows. `POOLED` has it in these two parts, for rows that lie on several
devices: the means are averaged over all of them, and the penalty is that of all rows together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.coding_rate import coding_rate, prepare_rows, rate_of_moments
from polarjax.ops.inverse_root import inverse_root, root
from polarjax.ops.products import over_rows, project

VARIANCE_FLOOR = 1e-4
FARTHEST_KNOT, N_KNOTS = 5.0, 17


class Moments(NamedTuple):
    """Means of rows and of their outer products."""

    mean: Float[Array, " d"]
    second: Float[Array, "d d"]


class Pooled(NamedTuple):
    """A penalty of rows that lie in several places, as many in each.

    Attributes:
      means: (z [n, d], key) -> pytree of means over the rows of one place.
      penalty: (the mean of these over places, number of all rows) -> what is minimised.
    """

    means: Callable[..., Any]
    penalty: Callable[[Any, int], Array]


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
    z = z - z.mean(0, keepdims=True)
    covariance = over_rows(z, z) / (len(z) - 1)
    return _weigh_covariance(covariance, variance_weight, covariance_weight)


def _weigh_covariance(
    covariance: Float[Array, "d d"], variance_weight: float = 25.0, covariance_weight: float = 1.0
) -> Float[Array, ""]:
    d = len(covariance)
    # Differences of moments may be negative by rounding.
    deviation = root(jnp.maximum(jnp.diagonal(covariance), 0) + VARIANCE_FLOOR)
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
    return gaussian_distance(_slices(z, key, n_slices)).mean()


def gaussian_distance(x: Float[Array, "n K"]) -> Float[Array, " K"]:
    """Returns the Epps-Pulley statistic of every column of samples against the standard normal distribution.

    The knots are 0.31 apart, so that samples 20 apart look like one: it bounds what outliers count.
    """
    return len(x) * _distance_of_waves(mean_waves(x))


def mean_waves(x: Float[Array, "n K"]) -> Float[Array, "2 J K"]:
    """Returns the means over samples of cos(t x) and of sin(t x) at the knots t in [0, 5]."""
    # A knot at a time: the angles of all knots at once would be 17 times the codes.
    waves = [(jnp.cos(t * x).mean(0), jnp.sin(t * x).mean(0)) for t in _knots()]
    return jnp.stack([jnp.stack(part) for part in zip(*waves, strict=True)])


def _distance_of_waves(waves: Float[Array, "2 J K"]) -> Float[Array, " K"]:
    step = FARTHEST_KNOT / (N_KNOTS - 1)
    total = jnp.zeros(waves.shape[2], waves.dtype)
    for knot, t in enumerate(_knots()):
        normal = math.exp(-(t**2) / 2)
        error = (waves[0, knot] - normal) ** 2 + waves[1, knot] ** 2
        # Knots at -t are those at t; 0 and the farthest have one neighbour within [0, 5].
        total += (step if knot in (0, N_KNOTS - 1) else 2 * step) * normal * error
    return total


def _knots() -> list[float]:
    return [FARTHEST_KNOT / (N_KNOTS - 1) * knot for knot in range(N_KNOTS)]


def _slices(z: Float[Array, "n d"], key: Array, n_slices: int = 256) -> Float[Array, "n K"]:
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    directions = jax.random.normal(key, (z.shape[1], n_slices), z.dtype)
    directions = directions * inverse_root(jnp.square(directions).sum(0, keepdims=True))
    return project(z, directions)


def moments(z: Float[Array, "n d"], key: Array | None = None) -> Moments:
    """Returns the moments of rows, in at least float32."""
    del key
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    return Moments(z.mean(0), over_rows(z, z) * (1 / len(z)))


def _moments_of_directions(z: Float[Array, "n d"], key: Array | None = None) -> Moments:
    return moments(prepare_rows(z, normalized=True, centred=False), key)


def _pooled_rate(whole: Moments, n: int) -> Float[Array, ""]:
    del n
    return -rate_of_moments(*whole)


def _pooled_covariance(whole: Moments, n: int) -> Float[Array, ""]:
    covariance = whole.second - whole.mean[:, None] * whole.mean[None]
    return _weigh_covariance(covariance * (n / (n - 1)))


def _pooled_waves(whole: Float[Array, "2 J K"], n: int) -> Float[Array, ""]:
    return n * _distance_of_waves(whole).mean()


PENALTIES = {
    "coding_rate": rate_penalty,
    "variance_covariance": variance_covariance,
    "sliced_gaussian": sliced_gaussian,
}
POOLED = {
    "coding_rate": Pooled(_moments_of_directions, _pooled_rate),
    "variance_covariance": Pooled(moments, _pooled_covariance),
    "sliced_gaussian": Pooled(lambda z, key: mean_waves(_slices(z, key)), _pooled_waves),
}
