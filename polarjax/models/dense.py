"""The dense layer of all models: Flax's, with the product of `ops.products`."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from polarjax.ops.products import project


def _project(
    x: Float[Array, "*n k"], kernel: Float[Array, "k m"], dimensions: Any, precision: Any = None
) -> Array:
    """Stands in for `jax.lax.dot_general`, which Flax calls to contract the last axis of x with the kernel's first."""
    del dimensions, precision  # the one that a dense layer has; always the highest
    return project(x, kernel)


# y = x W + b over the last axis.
Dense = functools.partial(nn.Dense, dot_general=_project, precision=jax.lax.Precision.HIGHEST)
