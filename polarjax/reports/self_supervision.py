"""What self-supervision learned: how well is predicted, and whether the codes have collapsed.

Every number stands beside that of the untrained model: the same config and seed before the first step.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from polarjax.core import Data, PyTree, System
from polarjax.engine.state import TrainState, initial_state
from polarjax.models import jepa_objective
from polarjax.models.build import make_module
from polarjax.reports import probes
from polarjax.reports.runs import Run

COLLAPSED = 0.1
"""A deviation below this, at any level, is an alarm: spread codes have 1, codes that are one point 0."""
SPREAD = ("deviation", "cosine", "rank", "coding_rate", "rate")
INITIAL_ROWS, MOST_BATCHES = 8, 48


def is_self_supervised(config: Any) -> bool:
    """Whether a run has config.model.jepa."""
    return "jepa" in config.model and config.model.jepa is not None


def measure_run(run: Run, system: System, data: Data, tier: int) -> dict[str, Any] | None:
    """Evaluates the self-supervision of a checkpoint and of the untrained model on a tier.

    Returns:
      The field jepa of report.json: width of the codes, `trained` and `untrained` of `watch_tier`, whether the
      trained codes have collapsed, and what `probes.probe_run` found. None for a run without config.model.jepa, or
      where the tier has no segment.
    """
    if not is_self_supervised(run.config):
        return None
    data = data._replace(resident=jax.tree.map(jnp.asarray, data.resident))  # once, not with every batch
    objective, states = objective_of(run), states_of(run, system, data)

    @jax.jit
    def watch(state: TrainState, resident: PyTree, request: PyTree) -> dict[str, Array]:
        return jepa_objective.watch_codes(objective, state, data.fetch(resident, request))

    watched = {
        name: watch_tier(functools.partial(watch, state), data, tier, run.config)
        for name, state in states.items()
    }
    if watched["trained"] is None:
        return None
    collapsed = min(watched["trained"]["deviation"]["levels"]) < COLLAPSED
    return {
        "width": run.config.model.jepa.width,
        **watched,
        "collapsed": collapsed,
        "probes": probes.probe_run(objective, states, data, run.config, tier),
    }


def states_of(run: Run, system: System, data: Data) -> dict[str, TrainState]:
    """Returns the trained state and that of the same config and seed before the first step, without an optimizer.

    The untrained one starts from nothing, also where the run started from another.
    """
    rows = INITIAL_ROWS // len(data.sessions) * len(data.sessions) or len(data.sessions)

    @jax.jit
    def draw(resident, request):
        batch = data.fetch(resident, request)
        return initial_state(system, lambda params: {}, batch, run.config.seed)

    request = jax.tree.map(lambda leaf: leaf[:rows], data.train(0))
    untrained = draw(data.resident, request)
    kept = {"params": run.params, "model_state": run.model_state, "target_params": run.target_params}
    return {"trained": untrained.replace(**jax.tree.map(jnp.asarray, kept)), "untrained": untrained}


def objective_of(run: Run) -> jepa_objective.Objective:
    """Returns what a self-supervised run predicts, with what head."""
    config = run.config
    n_frames = config.data.burn_in + config.data.predicted
    return jepa_objective.read_objective(config.model.jepa, make_module(config, run.info), n_frames)


def watch_tier(
    watch: Callable[[PyTree, PyTree], dict[str, Array]], data: Data, tier: int, config: Any
) -> dict[str, Any] | None:
    """Measures the loss and the spread of the codes, as the evaluations of the training do.

    They are means over batches of the size of a micro-batch, because how many directions codes take depends on how
    many there are; over at most 48 of them, drawn from all of the tier, for more are not more exact and cost minutes.

    Args:
      watch: (resident, request) -> what `jepa_objective.watch_codes` says of a batch.

    Returns:
      loss; loss_other_gaze, where every example has the gaze of another one, and other_gaze_excess, by how much it is
      higher (None for a predictor that does not see the gaze); and of `SPREAD` the mean over levels and the levels.
      None where the tier has no segment.
    """
    rows = config.data.batch_size // config.optim.micro_batches
    sums: PyTree = None
    for request in itertools.islice(data.evaluation(tier, rows), MOST_BATCHES):
        batch = jax.device_get(watch(data.resident, request))
        sums = batch if sums is None else jax.tree.map(np.add, sums, batch)
    if sums is None:
        return None
    return arrange(
        {name.removeprefix("jepa/"): value for name, value in jepa_objective.mean_watched(sums).items()}
    )


def arrange(found: dict[str, float]) -> dict[str, Any]:
    """Orders the metrics jepa/.. of an evaluation as the report has them; see `watch_tier`."""
    other = found.get("loss_other_gaze")
    numbers: dict[str, Any] = {"loss": found["loss"], "loss_other_gaze": other}
    numbers["other_gaze_excess"] = None if other is None else other - found["loss"]
    for name in SPREAD:
        levels = itertools.takewhile(lambda key: key in found, (f"{name}_{n}" for n in itertools.count()))
        numbers[name] = {"mean": found[name], "levels": [found[key] for key in levels]}
    return numbers
