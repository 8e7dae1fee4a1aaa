"""Losses of counts under predicted log rates: one mean over the scored bins, safe where nothing is scored."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import Batch

LOG_RATE_RANGE = (-20.0, 10.0)
EPSILON = 1e-8


def poisson_nll(
    log_rate: Float[Array, "*batch N"], count: Float[Array, "*batch N"], mask: Float[Array, "*batch N"]
) -> Float[Array, ""]:
    """Mean negative log likelihood of Poisson counts, without log y!.

        sum d (e^z - y z) / sum d

    Args:
      log_rate: z, log spikes/bin, clipped to [-20, 10]; outside the gradient is 0.
      count: y, spikes/bin; may be anything, NaN too, where the mask is 0.
      mask: d, weight of every bin, >= 0.

    Returns:
      Nats per bin; exactly 0, with gradient 0, where the mask is empty.
    """
    scored = mask > 0
    log_rate = _clip(jnp.where(scored, log_rate, 0.0), *LOG_RATE_RANGE)
    count = jnp.where(scored, count, 0.0)
    return _masked_mean(jnp.exp(log_rate) - count * log_rate, mask)


def zero_inflated_poisson_nll(
    log_rate: Float[Array, "*batch N"],
    count: Float[Array, "*batch N"],
    mask: Float[Array, "*batch N"],
    silence: Float[Array, "*batch N"],
) -> Float[Array, ""]:
    """Mean negative log likelihood of counts that are 0 with probability pi and Poisson otherwise.

        y = 0: -log(pi + (1 - pi) e^-r + eps)
        y > 0: -(log(1 - pi + eps) + y log(r + eps) - r),   eps = 1e-8

    Args:
      log_rate: log r, log spikes/bin, clipped to [-20, 10].
      count: y, spikes/bin; may be anything where the mask is 0.
      mask: weight of every bin, >= 0.
      silence: pi, clipped to [eps, 1 - eps].

    Returns:
      Nats per bin; exactly 0, with gradient 0, where the mask is empty.

    Source: Lambert 1992.
    """
    scored = mask > 0
    rate = jnp.exp(_clip(jnp.where(scored, log_rate, 0.0), *LOG_RATE_RANGE))
    count = jnp.where(scored, count, 0.0)
    silence = _clip(jnp.where(scored, silence, 0.5), EPSILON, 1.0 - EPSILON)
    none = -jnp.log(silence + (1.0 - silence) * jnp.exp(-rate) + EPSILON)
    some = -(jnp.log(1.0 - silence + EPSILON) + count * jnp.log(rate + EPSILON) - rate)
    return _masked_mean(jnp.where(count > 0, some, none), mask)


def by_session(x: Float[Array, "B n N"], n_sessions: int) -> Float[Array, "b n S N"]:
    """Splits the batch axis: example i belongs to session i % S."""
    # Not reshape(-1, ..): N is 0 where no session has units.
    return jnp.moveaxis(x.reshape(len(x) // n_sessions, n_sessions, *x.shape[1:]), 1, 2)


def session_mean_nll(
    log_rate: Float[Array, "B n N"],
    batch: Batch,
    n_units: tuple[int, ...],
    silent: Float[Array, "B 1 N"] | None = None,
) -> Float[Array, ""]:
    """Averages the masked loss over sessions by their weights, so that many units do not outweigh few.

    Sessions without units are left out, so that they do not dilute the mean; 0 where no session has any.

    Args:
      log_rate: log r of every bin that is not silent.
      batch: the counts; a session's mask of all its bins is 0 or the session's weight.
      n_units: number of units of each of the S sessions.
      silent: pi of the zero-inflated Poisson loss; None for the Poisson loss.
    """
    recorded, n_sessions = [s for s, units in enumerate(n_units) if units], len(n_units)
    if not recorded:
        return jnp.zeros((), log_rate.dtype)
    given = [log_rate, batch.spikes, batch.valid]
    given += [] if silent is None else [jnp.broadcast_to(silent, log_rate.shape)]
    grouped = [by_session(x, n_sessions) for x in given]
    nll = poisson_nll if silent is None else zero_inflated_poisson_nll
    # The mean of a session knows nothing of its weight, which its mask has in every scored bin.
    weight = grouped[2].max((0, 1, 3))
    per_session = [weight[s] * nll(*(x[:, :, s] for x in grouped)) for s in recorded]
    return jnp.mean(jnp.stack(per_session))


def _masked_mean(values, mask):
    # Dividing by 1 instead of 0 keeps the gradient of an empty mask at 0.
    total = jnp.sum(mask)
    return jnp.sum(values * mask) / jnp.where(total > 0, total, 1.0)


def _clip(values, lower, upper):
    # The gradient passes at the bounds themselves, where jnp.clip would halve it.
    return jnp.where(values < lower, lower, jnp.where(values > upper, upper, values))
