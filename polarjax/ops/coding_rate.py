"""The coding rate of a batch of codes: how much volume they span. It is maximised against collapse.

logdet is concave: the mean of the rates of parts of a batch is at most the rate of all its rows. Where the rows lie on
several devices, their moments are averaged and `rate_of_moments` is the rate of them all; see `ops.spread.POOLED`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.inverse_root import inverse_root
from polarjax.ops.products import over_rows, pool_rows

# A row shorter than this counts as shorter than it is: its direction is noise, and a row of 0 has a finite gradient.
SHORTEST_ROW = 1e-3
# The ridge of the reference's rate, and the floor of its eigenvalues.
REFERENCE_RIDGE = 1e-4


def unit_rows(z: Float[Array, "*n d"], shortest: float) -> Float[Array, "*n d"]:
    """Returns z/max(|z|, shortest) over the last axis; finite, with a finite gradient, at z = 0."""
    square = jnp.square(z).sum(-1, keepdims=True)
    return z * inverse_root(jnp.maximum(square, shortest**2))


def prepare_rows(z: Float[Array, "n d"], *, normalized: bool, centred: bool) -> Float[Array, "n d"]:
    """Returns rows in at least float32: of length sqrt(d) if `normalized`, then without their mean if `centred`."""
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    if normalized:
        z = math.sqrt(z.shape[1]) * unit_rows(z, SHORTEST_ROW)
    return z - z.mean(0, keepdims=True) if centred else z


def coding_rate(
    z: Float[Array, "n d"],
    *,
    alpha: float = 1.0,
    normalized: bool = True,
    centred: bool = True,
    ridge: float = 0.0,
) -> Float[Array, ""]:
    """Returns R = logdet((1 + ridge) I + alpha Z^T Z/n), in nats, by Cholesky.

    With fewer rows than columns the n x n Gram matrix takes the place of the d x d one: the same value,
    d log(1 + ridge) + logdet(I + alpha/(1 + ridge) Z Z^T/n). Normalised rows have a trace of at most d, so that I keeps
    the matrix positive definite in float32 as long as alpha d < 1e6. At exact collapse R and its gradient are 0.

    Args:
      alpha: d/eps^2 of the distortion eps.
      normalized: rows are given the length sqrt(d) first; otherwise R grows with the scale of the code alone.
      centred: the mean row is taken off.
      ridge: 1e-4 in the reference, which neither normalises nor has it 0.

    Source: Ma et al. (2007); Yu et al. (2020), MCR2, whose rate is half of this.
    """
    z = prepare_rows(z, normalized=normalized, centred=centred)
    n, d = z.shape
    scale = 1 + ridge
    gram = over_rows(z, z) if n >= d else pool_rows(z, z)
    return d * math.log(scale) + log_volume(gram * (alpha / (n * scale)))


def rate_of_moments(
    mean: Float[Array, " d"], second: Float[Array, "d d"], *, alpha: float = 1.0
) -> Float[Array, ""]:
    """Returns `coding_rate` of rows of length sqrt(d) from their mean m and second moment S = Z^T Z/n.

    logdet(I + alpha (S - m m^T)): the covariance is that of all rows, however many places their moments come from.
    """
    return log_volume(alpha * (second - mean[:, None] * mean[None]))


@jax.custom_vjp
def log_volume(gram: Float[Array, "d d"]) -> Float[Array, ""]:
    """Returns logdet(I + G) of a symmetric, positive semi-definite G, by Cholesky; its gradient is (I + G)^-1."""
    return _log_volume(gram)[0]


def _log_volume(gram: Float[Array, "d d"]) -> tuple[Float[Array, ""], Float[Array, "d d"]]:
    factor = jnp.linalg.cholesky(gram + jnp.eye(len(gram), dtype=gram.dtype))
    return 2 * jnp.log(jnp.diagonal(factor)).sum(), factor


def _slope_of_volume(factor: Float[Array, "d d"], slope: Float[Array, ""]) -> tuple[Float[Array, "d d"]]:
    return (slope * jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(factor), dtype=factor.dtype)),)


log_volume.defvjp(_log_volume, _slope_of_volume)


def floored_rate(
    z: Float[Array, "n d"], *, alpha: float = 1.0, floor: float = REFERENCE_RIDGE
) -> Float[Array, ""]:
    """Returns sum_j log(1 + alpha max(lambda_j, floor)) over the eigenvalues of the centred covariance, in nats.

    The reference's other form of the rate, for parity: directions below the floor are counted and have no gradient.

    Source: seq-JEPA with coding rate, its `stable` form.
    """
    z = prepare_rows(z, normalized=False, centred=True)
    covariance = over_rows(z, z) / len(z)
    return jnp.log1p(alpha * jnp.maximum(jnp.linalg.eigvalsh(covariance), floor)).sum()


def largest_rate(n: int, d: int, *, alpha: float = 1.0) -> float:
    """Returns R_max = r log(1 + alpha d/r), r = min(d, n - 1): the largest R of n normalised, centred rows, in nats.

    A trace of d, shared by the r directions that centred rows can have. 0 for one row.
    """
    r = min(d, n - 1)
    return r * math.log1p(alpha * d / r) if r > 0 else 0.0


def rate_share(z: Float[Array, "n d"], *, alpha: float = 1.0) -> Float[Array, ""]:
    """Returns R/R_max of normalised, centred rows, in [0, 1]: 0 collapsed, 1 spread evenly; for logs. 0 for one row."""
    largest = largest_rate(*z.shape, alpha=alpha)
    rate = coding_rate(jax.lax.stop_gradient(z), alpha=alpha)
    return rate / largest if largest else jnp.zeros_like(rate)
