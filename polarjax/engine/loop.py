"""The one training loop."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from polarjax.core import Data, PyTree, System
from polarjax.engine import checkpoints, sharding
from polarjax.engine import workdir as folders
from polarjax.engine.config import validate
from polarjax.engine.interruption import Interrupted
from polarjax.engine.optim import describe_groups, make_optimizer
from polarjax.engine.state import TrainState, to_host
from polarjax.engine.step import (
    make_eval_step,
    make_initialize,
    make_train_step,
    metric_name,
)
from polarjax.engine.tally import Tally
from polarjax.engine.writer import Clock, Writer

INITIAL_ROWS = 512  # that what a model learns of its data before the first step comes from, at most


def train(
    config: Any, system: System, data: Data, workdir: str | Path, *, stop: Callable[[int], bool] | None = None
) -> TrainState:
    """Trains a system to config.train.num_steps, from its last checkpoint where there is one.

    Args:
      config: all sections; only seed, data.batch_size, optim and train are read here, all are saved.
      system: the model and its losses.
      data: the batches, a function of the step.
      workdir: folder of the run; the same call continues it, bit by bit as if it had not been interrupted.
      stop: step -> whether to save and leave after it.

    Returns:
      The state after the last step, on the devices.

    Raises:
      ConfigError: the config does not fit the model, the devices or the run in the folder.
      CheckpointError: the folder cannot be used, or all its checkpoints are damaged.
      NumericError: config.train.max_skipped steps in a row were not finite.
      Interrupted: `stop` answered True; the state is saved.
    """
    workdir, batch_size = Path(workdir), config.data.batch_size
    settings, optim = validate(config)
    mesh = sharding.make_mesh()
    shares = {"batch_size": batch_size, "micro_batches": optim.micro_batches}
    sharding.check_sharing(**shares, devices=mesh.size, sessions=len(data.info.sessions))
    put_request = functools.partial(sharding.put_request, mesh=mesh, **shares)
    resident = sharding.put_replicated(data.resident, mesh)
    example = sharding.first_rows(put_request(data.train(0)), mesh, INITIAL_ROWS)
    params = _abstract_params(system, data, resident, example)
    optimizer = make_optimizer(optim, system.param_group, params, settings.num_steps)
    train_step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=optim.deterministic)
    eval_step = make_eval_step(system, data.fetch, mesh, deterministic=optim.deterministic)
    evaluate = _make_evaluation(
        system, data, eval_step, put_request, resident, batch_size, settings.eval_batches
    )
    run = folders.describe_run(config, data.info)
    keep = {name: getattr(settings, name) for name in ("keep_latest", "keep_best", "best_metric")}
    with folders.claim(workdir):
        initialize = make_initialize(system, optimizer, data.fetch, config.seed)
        state, tally, saved, warnings = _continue_or_begin(workdir, run, initialize, resident, example, mesh)
        start, total = int(state.step), settings.num_steps
        folders.write_config(workdir, run["config"])
        with (
            checkpoints.Checkpoints(workdir, **keep) as saver,
            Writer(workdir, start=start, total=total, primary=jax.process_index() == 0) as writer,
        ):
            for warning in warnings:
                writer.say(f"warning: {warning}")
            writer.say(describe_groups(optim, system.param_group, params))
            if start == total:
                return state
            if not saved:
                saver.save(state, {**run, "metrics": {}, "tally": tally.to_dict()}, wait=True)
            else:
                writer.say(f"continuing from step {start}")
            begin = time.monotonic()
            compiled = train_step.lower(state, resident, put_request(data.train(start))).compile()
            writer.say(f"compiled in {time.monotonic() - begin:.1f} s")
            clock, pending = Clock(), None
            for step in range(start + 1, total + 1):
                begin = time.monotonic()
                request = put_request(data.train(step - 1))
                idle = pending is None or pending["train/loss"].is_ready()
                clock.count(time.monotonic() - begin, device_idle=idle)
                state, scalars = compiled(state, resident, request)
                # The device works on this step while the numbers of the one before are read.
                if pending is not None:
                    _count(tally, step - 1, pending, settings.max_skipped, writer)
                pending = scalars
                writer.advance(step)
                leaving, last = stop is not None and stop(step), step == total
                logs, evaluates, saves = (
                    last or step % every == 0
                    for every in (settings.log_every, settings.eval_every, settings.save_every)
                )
                if not (leaving or logs or evaluates or saves):
                    continue
                _count(tally, step, pending, settings.max_skipped, writer)
                pending, numbers, metrics = None, {}, {}
                if logs:
                    numbers = tally.take() | clock.take(batch_size)
                with clock.pause():
                    if logs:
                        numbers |= {f"optim/lr_{k}": v for k, v in optimizer.learning_rates(step - 1).items()}
                        numbers |= system.constants(jax.device_get(state.params))
                    if evaluates:
                        metrics = evaluate(state)
                    if logs or evaluates:
                        writer.write(step, numbers | metrics)
                    if saves or leaving:
                        saver.save(
                            state, {**run, "metrics": metrics, "tally": tally.to_dict()}, wait=leaving or last
                        )
                if leaving and not last:
                    raise Interrupted(
                        f"stopped at step {step} and saved; to continue, run the same line again"
                    )
    return state


def _abstract_params(system: System, data: Data, resident: PyTree, rows: PyTree) -> PyTree:
    """Returns the shapes of the parameters without computing them."""

    def init(resident, rows):
        return system.init(jax.random.key(0), data.fetch(resident, rows))["params"]

    return jax.eval_shape(init, resident, rows)


def _continue_or_begin(
    workdir: Path,
    run: dict[str, Any],
    initialize: Callable[..., Any],
    resident: PyTree,
    rows: PyTree,
    mesh: Mesh,
) -> tuple[TrainState, Tally, bool, list[str]]:
    """Returns the newest intact state of the folder, or a new one; whether it was saved; warnings of damage."""
    saved, warnings = checkpoints.latest_intact(workdir)
    if saved is None:
        first = to_host(initialize(sharding.on_one_device(resident), rows))
        return sharding.put_replicated(first, mesh), Tally(), False, []
    folders.refuse_other_run(workdir, saved[1], run)
    matched = checkpoints.match_state(saved[0], jax.eval_shape(initialize, resident, rows))
    return sharding.put_replicated(matched, mesh), Tally(saved[1]["tally"]), True, warnings


def _make_evaluation(
    system: System,
    data: Data,
    eval_step: Callable[..., PyTree],
    put_request: Callable[[PyTree], PyTree],
    resident: PyTree,
    batch_size: int,
    eval_batches: int,
) -> Callable[[TrainState], dict[str, Any]]:
    """Returns state -> metrics of the validation tier: sums over all its batches, divided once."""

    def evaluate(state: TrainState) -> dict[str, Any]:
        sums = None
        for request in itertools.islice(data.evaluation(1, batch_size), eval_batches or None):
            added = eval_step(state, resident, put_request(request))
            sums = added if sums is None else jax.tree.map(jnp.add, sums, added)
        if sums is None:
            return {}
        metrics = system.eval_metrics(jax.device_get(sums))
        return {metric_name("eval", name): value for name, value in metrics.items()}

    return evaluate


def _count(tally: Tally, step: int, scalars: dict[str, Any], max_skipped: int, writer: Writer) -> None:
    if not tally.add(step, jax.device_get(scalars), max_skipped=max_skipped):
        writer.say(
            f"step {step}: the loss or its gradient is not finite, nothing was updated ({tally.in_a_row} in a row)"
        )
