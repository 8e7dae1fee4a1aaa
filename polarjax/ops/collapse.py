"""How collapsed codes are: numbers to watch, without a gradient.

The effective rank of the centred codes is missing on purpose: it does not know the scale, and a collapsed code, noise
around one point, scores full rank.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.coding_rate import coding_rate, rate_share, unit_rows

SHORTEST_ROW = 1e-12
RANK_FLOOR = 1e-5
MOST_ROWS = 1024


def normalized_deviation(z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns sqrt(d) times the deviation over rows of z/|z|, mean over columns: 1 spread, 0 collapsed.

    Source: Chen & He (2021), SimSiam, section 4.1.
    """
    return math.sqrt(z.shape[1]) * _unit(z).std(0).mean()


def mean_cosine(z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns the mean cosine between two different rows: 0 spread, 1 collapsed; n >= 2."""
    unit = _unit(z)
    n = len(unit)
    return (jnp.square(unit.sum(0)).sum() - jnp.square(unit).sum()) / (n * (n - 1))


def rank_me(z: Float[Array, "n d"]) -> Float[Array, ""]:
    """Returns exp of the entropy of the singular values of the codes, not centred: from 1, collapsed, to min(n, d).

        p = s/sum s + 1e-5,   exp(-sum p log p)

    Source: Garrido et al. (2023), RankMe, eq. 1 and 2, in the form of stable-pretraining.
    """
    z = jax.lax.stop_gradient(z).astype(jnp.promote_types(z.dtype, jnp.float32))
    # Not the roots of the eigenvalues of a Gram matrix: in float32 they are off by 3e-4 of the largest, times d.
    values = jnp.linalg.svd(z, compute_uv=False)
    total = values.sum()
    share = values / jnp.where(total > 0, total, 1) + RANK_FLOOR
    return jnp.exp(-(share * jnp.log(share)).sum())


def thin_rows(z: Float[Array, "n d"], at_most: int = MOST_ROWS) -> Float[Array, "m d"]:
    """Returns at most so many rows, so that watching many codes stays cheap.

    Always the same ones, drawn at random: evenly spaced rows of maps would be a few of their columns, where the
    spacing is a multiple of the width.
    """
    n = len(z)
    return z if n <= at_most else z[np.sort(np.random.default_rng(0).permutation(n)[:at_most])]


def diagnose(z: Float[Array, "n d"]) -> dict[str, Float[Array, ""]]:
    """Returns all numbers of codes by name, with R of `coding_rate` in nats and R/R_max, from at most 1024 rows."""
    z = thin_rows(jax.lax.stop_gradient(z))
    return {
        "deviation": normalized_deviation(z),
        "cosine": mean_cosine(z),
        "rank": rank_me(z),
        "coding_rate": coding_rate(z),
        "rate": rate_share(z),
    }


def _unit(z: Float[Array, "n d"]) -> Float[Array, "n d"]:
    z = jax.lax.stop_gradient(z)
    return unit_rows(z.astype(jnp.promote_types(z.dtype, jnp.float32)), SHORTEST_ROW)
