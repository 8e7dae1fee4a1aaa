"""Target networks: parameters that follow the online ones slowly."""

from __future__ import annotations

import math
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def ema(target: Tree, online: Tree, decay: float | Float[Array, ""]) -> Tree:
    """Returns decay target + (1 - decay) online, leaf by leaf; the target keeps its dtypes.

    Source: Grill et al. (2020), BYOL, eq. 1.
    """
    return jax.tree.map(lambda t, o: (decay * t + (1 - decay) * o).astype(t.dtype), target, online)


def target_decay(start: float, progress: float | Float[Array, ""]) -> Float[Array, ""]:
    """Returns 1 - (1 - start) (cos(pi p) + 1)/2: from `start` to 1 over a run whose share p in [0, 1] is done.

    Source: Grill et al. (2020), BYOL, section 3.3.
    """
    return 1 - (1 - start) * (jnp.cos(math.pi * jnp.asarray(progress)) + 1) / 2
