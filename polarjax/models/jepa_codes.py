"""The frozen code of the last frame of segments, for probes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import Batch, PyTree
from polarjax.models.jepa_head import normalize
from polarjax.models.jepa_objective import JEPA, Objective
from polarjax.models.summary_maps import summary_maps
from polarjax.ops.coarse_grid import coarse_grid

GRID = 3


def frozen_codes(
    objective: Objective, params: PyTree, model_state: PyTree, batch: Batch
) -> dict[str, Float[Array, "B _"]]:
    """Returns what is known at the last frame of each segment.

    Returns:
      code, what the projectors make of the summaries, of unit length as the loss sees it, averaged over the positions
      of each level; summaries, what a readout would see, averaged over 3 x 3 places of each level. Levels one after
      the other.
    """
    module, frames = objective.module, (objective.last,)
    variables = {"params": params, **model_state}
    given = (batch.stimulus, batch.gaze, frames)
    (maps,), _ = module.apply(variables, *given, method=summary_maps)
    codes: Any = objective.head.apply({"params": params[JEPA]}, maps, method="project")
    count = len(batch.stimulus)
    return {
        "code": jnp.concatenate([normalize(code).mean((1, 2)) for code in codes], -1),
        "summaries": jnp.concatenate([coarse_grid(level, GRID).reshape(count, -1) for level in maps], -1),
    }
