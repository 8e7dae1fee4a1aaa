"""A train step on its data, prepared as a run prepares it; what the benchmarks of whole configs time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import polarjax.systems
from polarjax.core import Data, PyTree
from polarjax.engine import blas, config, sharding
from polarjax.engine.optim import make_optimizer
from polarjax.engine.state import to_host
from polarjax.engine.step import make_eval_step, make_initialize, make_train_step


class Prepared(NamedTuple):
    """A step that is not compiled yet, and its arguments.

    Attributes:
      step: (state, resident, request) -> (state, scalars).
      state: the first one; the step takes its memory.
      resident: what stays on the devices.
      send: number of a step -> its request on the devices.
      evaluate: (state, resident, request) -> sums of the batch.
    """

    step: jax.stages.Wrapped
    state: Any
    resident: PyTree
    send: Callable[[int], PyTree]
    evaluate: jax.stages.Wrapped


def prepare(settings: Any, data: Data, *, abstract: bool = False) -> Prepared:
    """Builds system, optimizer and first state of a config.

    Args:
      abstract: only the shapes of the state, for models that are to be compiled and not run.
    """
    blas.use_one_thread()
    train, optim = config.validate(settings)
    system = polarjax.systems.build(settings, data.info)
    mesh = sharding.make_mesh(optim.micro_batches)
    resident = sharding.put_replicated(data.resident, mesh)
    shares = {"batch_size": settings.data.batch_size, "micro_batches": optim.micro_batches}
    sharding.check_sharing(**shares, sessions=len(data.info.sessions))

    def send(step: int) -> PyTree:
        return sharding.put_request(data.train(step), mesh, **shares)

    def init(resident, rows):
        return system.init(jax.random.key(0), data.fetch(resident, rows))["params"]

    rows = sharding.first_rows(send(0), mesh, settings.data.batch_size)
    shapes = jax.eval_shape(init, resident, rows)
    optimizer = make_optimizer(optim, system.param_group, shapes, train.num_steps)
    initialize = make_initialize(system, optimizer, data.fetch, settings.seed)
    step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=optim.deterministic)
    evaluate = make_eval_step(system, data.fetch, mesh, deterministic=optim.deterministic)
    if abstract:
        sharded = sharding.replicated(mesh)
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharded),
            jax.eval_shape(initialize, resident, rows),
        )
    else:
        state = sharding.put_replicated(to_host(initialize(sharding.on_one_device(resident), rows)), mesh)
    return Prepared(step, state, resident, send, evaluate)
