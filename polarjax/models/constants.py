"""The learned time constants of Polar-V1 in natural units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array


def time_constants(model: Any, params: Mapping[str, Any]) -> dict[str, Array]:
    """Returns those of lambda_fix, lambda_sac (1/s), alpha_fast, alpha_slow (a frame) that the rates depend on.

        lambda = start softplus(raw) / softplus(0),   alpha = sigma(logit)

    Args:
      model: a `PolarV1`, for the starts and the summaries.
      params: with 'alphas' and, where amplitudes relax, 'rates'.
    """
    constants = {
        f"alpha_{name}": nn.sigmoid(params["alphas"][f"{name}_logit"])
        for name in ("fast", "slow")
        if name in model.summaries
    }
    if "rates" in params:
        starts = {"fix": ("log_fixation", model.fixation_rate), "sac": ("log_saccade", model.saccade_rate)}
        for name, (raw, start) in starts.items():
            constants[f"lambda_{name}"] = start * nn.softplus(params["rates"][raw]) / np.log(2.0)
    return constants
