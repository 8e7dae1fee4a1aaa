"""What a loss adds to the likelihood: constants near their start, and sparse readouts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError, PyTree
from polarjax.models.constants import distance_from_start, names_of
from polarjax.ops.inverse_root import root

FEATURE_TERMS = ("feature_l1", "feature_group_lasso")
TERMS = ("constants", *FEATURE_TERMS)


def feature_l1(kernel: Float[Array, "S N L F"]) -> Float[Array, ""]:
    """Sum of |w| over all weights: a sum, so that 1e-7 of it is the pull that the reference's recipe has.

    Source: lasso, Tibshirani (1996).
    """
    # The gradient of jnp.abs at 0 is 1; that of the sign is 0 everywhere.
    return (kernel * jnp.sign(kernel)).sum()


def feature_group_lasso(kernel: Float[Array, "S N L F"], group_size: int) -> Float[Array, ""]:
    """Sum over groups of sqrt(size) |w|_2: whole groups go to 0, or stay.

    Args:
      kernel: weights of every unit.
      group_size: consecutive features of a level that are a group; F is a multiple.

    Returns:
      The sum; its gradient is 0 for a group that is exactly 0.

    Source: Yuan & Lin (2006).
    """
    square = jnp.square(kernel.reshape(-1, group_size)).sum(-1)
    # The square root of 0 has no gradient, and both branches of a where are differentiated.
    norm = jnp.where(square > 0, root(jnp.where(square > 0, square, 1.0)), 0.0)
    return np.sqrt(group_size) * norm.sum()


def check_terms(model: Any, names: Collection[str]) -> None:
    """Checks that a model has what the terms of its loss are about.

    Raises:
      ConfigError: it has no constants, or no features that are weighed, as the linear-nonlinear model.
    """
    if "constants" in names and not names_of(model):
        raise ConfigError(
            f"config.loss.weights.constants is not 0, but {type(model).__name__} has no time constants here; "
            "set it to 0."
        )
    for name in names:
        if name in FEATURE_TERMS and not hasattr(model, "initial_width"):
            raise ConfigError(
                f"config.loss.weights.{name} is not 0, but {type(model).__name__} has no readout of features; "
                "set it to 0."
            )


def regularise(model: Any, params: PyTree, names: Collection[str]) -> dict[str, Array]:
    """Returns {term: value} of those terms that are among `names`."""
    terms = {"constants": distance_from_start(model, params)} if "constants" in names else {}
    if "feature_l1" in names:
        terms["feature_l1"] = feature_l1(unit_weights(model, params))
    if "feature_group_lasso" in names:
        kernel = unit_weights(model, params)
        terms["feature_group_lasso"] = feature_group_lasso(kernel, group_size(model, kernel))
    return terms


def unit_weights(model: Any, params: PyTree) -> Float[Array, "S N L F"]:
    """Returns the readout's kernel with 0 for the units that only pad a session."""
    kernel = params["readout"]["kernel"]
    there = np.arange(kernel.shape[1])[None] < np.asarray(model.n_units)[:, None]
    return kernel * jnp.asarray(there, kernel.dtype)[..., None, None]


def group_size(model: Any, kernel: Float[Array, "S N L F"]) -> int:
    """Returns how many features are a group: the pairs of one summary in one window, else all of a level."""
    return getattr(model, "n_pairs", kernel.shape[-1])
