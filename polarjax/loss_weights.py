"""The section config.loss: how the terms of a loss are weighed, and when."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import ConfigError, as_numbers


class LossWeights(NamedTuple):
    """What the terms of a loss are multiplied with before they are added.

    Attributes:
      full: {term: weight} of the terms that are not 0.
      ramps: {term: (start, end)}, shares of the run, of those that rise from 0.
      num_steps: length of the run.
    """

    full: dict[str, float]
    ramps: dict[str, tuple[float, float]]
    num_steps: int

    def at(self, step: Any) -> dict[str, Any]:
        """Returns {term: weight} after `step` steps of the run."""
        return {
            name: weight * ramp(step / self.num_steps, *self.ramps[name]) if name in self.ramps else weight
            for name, weight in self.full.items()
        }


def ramp(progress: Any, start: float, end: float) -> Float[Array, "*shape"]:
    """Rises linearly from 0 to 1 while `progress` goes from start to end."""
    return jnp.clip((progress - start) / (end - start), 0.0, 1.0)


def read_weights(
    section: Any,
    likelihoods: tuple[str, ...],
    regularisers: tuple[str, ...],
    num_steps: int,
    *,
    alone: tuple[str, ...] = (),
) -> LossWeights:
    """Checks config.loss.

    Args:
      section: with weights {term: number >= 0} and schedules {regulariser: (start, end), or None}.
      likelihoods: terms of which exactly one has a weight.
      regularisers: the other terms.
      alone: those of the other terms that need no likelihood beside them.
      num_steps: length of the run.

    Raises:
      ConfigError: the names are not those of the terms, or a value is not what is allowed.
    """
    weights = _exactly("config.loss.weights", "the loss terms", section.weights, likelihoods + regularisers)
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(f"config.loss.weights.{name} is {weight!r}; allowed are numbers >= 0.")
    schedules = _exactly("config.loss.schedules", "the terms", section.schedules, regularisers)
    count = sum(weights[name] > 0 for name in likelihoods)
    if count > 1 or (count == 0 and not any(weights[name] > 0 for name in alone)):
        given = " and ".join(f"{name} {weights[name]!r}" for name in likelihoods + alone)
        which = f"of {', '.join(likelihoods)}" if alone else "of them"
        without = f", or none and {' or '.join(alone)}" if alone else ""
        raise ConfigError(f"config.loss.weights has {given}; exactly one {which} must be above 0{without}.")
    full = {name: float(weight) for name, weight in weights.items() if weight}
    ramps = {name: _read_shares(name, shares) for name, shares in schedules.items() if shares is not None}
    return LossWeights(full, ramps, num_steps)


def _exactly(where: str, what: str, section: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if set(section) != set(names):
        raise ConfigError(f"{where} must name exactly {what} {', '.join(names)}, got {sorted(section)}.")
    return dict(section)


def _read_shares(name: str, shares: Any) -> tuple[float, float]:
    pair = as_numbers(shares)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 1:
        raise ConfigError(
            f"config.loss.schedules.{name} is {shares!r}; allowed are None and (start, end), shares of the run with "
            "0 <= start < end <= 1."
        )
    return pair[0], pair[1]
