"""Evaluations during training: metrics of the whole validation tier."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from polarjax.core import Data, PyTree, System
from polarjax.engine.state import TrainState
from polarjax.engine.step import make_eval_step, metric_name


def make_evaluation(
    system: System,
    data: Data,
    mesh: Mesh,
    put_request: Callable[[PyTree], PyTree],
    resident: PyTree,
    config: Any,
) -> Callable[[TrainState, Callable[[], bool]], dict[str, Any] | None]:
    """Returns (state, polled) -> metrics of the validation tier: sums over all its batches, divided once.

    Before each batch `polled` is asked whether to leave; the metrics are None then. A batch is sent while the devices
    work on the one before, but begins after it: two programs at a time whose devices wait for each other may take
    the threads that both need (on CPUs for ever).
    """
    eval_step = make_eval_step(system, data.fetch, mesh, deterministic=config.optim.deterministic)
    batch_size, most = config.data.batch_size, config.train.eval_batches or None

    def evaluate(state: TrainState, polled: Callable[[], bool]) -> dict[str, Any] | None:
        sums, pending = None, None
        for request in itertools.islice(data.evaluation(1, batch_size), most):
            if polled():
                return None
            sent = put_request(request)
            sums = _added(sums, pending)
            pending = eval_step(state, resident, sent)
        sums = _added(sums, pending)
        if sums is None:
            return {}
        metrics = system.eval_metrics(sums)
        return {metric_name("eval", name): value for name, value in metrics.items()}

    return evaluate


def _added(sums: PyTree | None, pending: PyTree | None) -> PyTree | None:
    """Waits for the sums of a batch and adds them."""
    added = jax.device_get(pending)
    return added if sums is None else jax.tree.map(np.add, sums, added)
