"""Units that may be silent whatever they see: counts that are 0 with probability pi and Poisson of rate r otherwise.

    pi = sigma(silence_logit),   mean count = (1 - pi) r

Models give log r. The parameter is the readout's, [S, N], where the model's keyword zero_inflated is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

NAME = "silence_logit"
# pi = 0.047: the mean counts at the start are 5 % below those of the data, and pi has a gradient.
INITIAL_LOGIT = -3.0


def silence(params: Mapping[str, Any], batch: int) -> Float[Array, "B 1 N"]:
    """Returns pi of every unit of every example (example i has session i % S)."""
    return nn.sigmoid(_logit(params, batch))


def log_mean(params: Mapping[str, Any], log_rate: Float[Array, "B n N"]) -> Float[Array, "B n N"]:
    """Returns log((1 - pi) r), the log of the mean count, of log r."""
    return log_rate - nn.softplus(_logit(params, len(log_rate)))


def _logit(params: Mapping[str, Any], batch: int) -> Float[Array, "B 1 N"]:
    logit = params.get("readout", params)[NAME]
    return jnp.tile(logit, (batch // len(logit), 1))[:, None]
