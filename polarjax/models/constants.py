"""The learned time constants of Polar-V1: their starts, their values in natural units, their bounds.

    lambda = start softplus(raw) / softplus(0),   alpha = sigma(logit)

A lambda is positive, and a step of its raw parameter is a relative step of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError, PyTree, as_numbers

# Name of a constant -> where its parameter lies, and the attribute of the model with its start.
PLACES: dict[str, tuple[tuple[str, str], str]] = {
    "lambda_fix": (("rates", "log_fixation"), "fixation_rate"),
    "lambda_sac": (("rates", "log_saccade"), "saccade_rate"),
    "alpha_fast": (("alphas", "fast_logit"), "alpha_fast"),
    "alpha_slow": (("alphas", "slow_logit"), "alpha_slow"),
}

LARGEST_ALPHA = 0.9995  # a memory of 2,000 frames


def initial_rates(model: Any) -> dict[str, Array]:
    """Returns the raw parameters of the relaxation rates at their starts; without gaze all is fixation."""
    names = ("log_fixation", "log_saccade") if model.uses_gaze else ("log_fixation",)
    return {name: jnp.zeros(()) for name in names}


def initial_alphas(model: Any) -> dict[str, Array]:
    """Returns the logits of the averages that are among the summaries of a `PolarV1`, at their starts."""
    starts = {"fast": model.alpha_fast, "slow": model.alpha_slow}
    return {
        f"{name}_logit": jnp.asarray(_logit(start), jnp.float32)
        for name, start in starts.items()
        if name in model.summaries
    }


def time_constants(model: Any, params: Mapping[str, Any]) -> dict[str, Array]:
    """Returns those of lambda_fix, lambda_sac (1/s), alpha_fast, alpha_slow (a frame) that the rates depend on.

    Args:
      model: a `PolarV1`, for the starts and the summaries.
      params: with 'alphas' where averages are among the summaries and, where amplitudes relax, 'rates'.
    """
    values = {}
    for name, ((group, leaf), start) in PLACES.items():
        if leaf in params.get(group, {}):
            raw = params[group][leaf]
            rate = getattr(model, start) * nn.softplus(raw) / math.log(2.0)
            values[name] = rate if group == "rates" else nn.sigmoid(raw)
    return values


def distance_from_start(model: Any, params: Mapping[str, Any]) -> Float[Array, ""]:
    """Sum over the constants of ln(tau/tau at the start)^2, tau the memory 1/lambda or -1/ln(alpha)."""
    total = jnp.zeros(())
    for name, value in time_constants(model, params).items():
        start = getattr(model, PLACES[name][1])
        ratio = value / start if name.startswith("lambda") else jnp.log(value) / math.log(start)
        total += jnp.square(jnp.log(ratio))
    return total


def names_of(model: Any) -> tuple[str, ...]:
    """Returns the constants that a model has: rates where amplitudes relax, alphas where they are averaged."""
    relaxes, averages = getattr(model, "dynamics", "none") != "none", getattr(model, "summaries", ())
    has = {
        "lambda_fix": relaxes,
        "lambda_sac": relaxes and model.uses_gaze,
        "alpha_fast": "fast" in averages,
        "alpha_slow": "slow" in averages,
    }
    return tuple(name for name in PLACES if has[name])


def describe_stuck(model: Any) -> tuple[str, ...]:
    """Returns a warning for each average of a model whose start is so near 1 that it neither moves nor is learned."""
    return tuple(
        f"config.model.kwargs.{name} is {getattr(model, name)}: this average remembers "
        f"{-1 / math.log(getattr(model, name)):,.0f} frames, more than segments have, and the gradient of its logit is "
        f"near 0; start it at {LARGEST_ALPHA} or below"
        for name in names_of(model)
        if name.startswith("alpha") and LARGEST_ALPHA < getattr(model, name) < 1
    )


def read_bounds(model: Any, bounds: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Returns {constant: (low, high)} of those entries of config.optim.bounds that are not None.

    Raises:
      ConfigError: the model lacks the constant, the value is not two numbers in order that it can have, or the constant
        starts outside, from where the first step would move it, frozen or not.
    """
    for name, limits in bounds.items():
        if limits is not None and name not in names_of(model):
            raise ConfigError(
                f"config.optim.bounds.{name} is {limits!r}, but the model has no {name}; set it to None."
            )
    pairs = {name: _read_pair(name, limits) for name, limits in bounds.items() if limits is not None}
    for name, (low, high) in pairs.items():
        start = getattr(model, PLACES[name][1])
        if not low <= start <= high:
            raise ConfigError(
                f"config.optim.bounds.{name} is {(low, high)}, but its start, config.model.kwargs.{PLACES[name][1]}, "
                f"is {start}; a start lies inside the bounds."
            )
    return pairs


def _read_pair(name: str, bounds: Any) -> tuple[float, float]:
    highest = math.inf if name.startswith("lambda") else 1.0
    pair = as_numbers(bounds)
    if len(pair) != 2 or not 0 < pair[0] < pair[1] <= highest:
        raise ConfigError(
            f"config.optim.bounds.{name} is {bounds!r}; allowed are None and (low, high) with 0 < low < high"
            f"{'' if math.isinf(highest) else ' <= 1'}."
        )
    return pair[0], pair[1]


def clip_constants(model: Any, params: PyTree, bounds: Mapping[str, tuple[float, float]]) -> PyTree:
    """Moves the constants of `bounds` (1/s, or a frame) to the nearest value inside them."""
    for name, limits in bounds.items():
        (group, leaf), start = PLACES[name]
        raw = _softplus_inverse if group == "rates" else _logit
        scale = math.log(2.0) / getattr(model, start) if group == "rates" else 1.0
        low, high = (raw(scale * limit) for limit in limits)
        clipped = jnp.clip(params[group][leaf], low, high)
        params = {**params, group: {**params[group], leaf: clipped}}
    return params


def _logit(value: float) -> float:
    return math.inf if value == 1 else float(np.log(value / (1 - value)))


def _softplus_inverse(value: float) -> float:
    return value + math.log(-math.expm1(-value))
