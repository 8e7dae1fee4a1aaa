"""The one training loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from polarjax.core import Data, PyTree, System
from polarjax.engine import checkpoints, sharding, warm_start
from polarjax.engine import workdir as folders
from polarjax.engine.clock import Clock
from polarjax.engine.compilation import ProgramCount
from polarjax.engine.config import TrainConfig, validate
from polarjax.engine.evaluation import make_evaluation
from polarjax.engine.interruption import Interrupted
from polarjax.engine.memory import check_memory, memory_errors
from polarjax.engine.optim import OptimConfig, Optimizer, describe_groups, make_optimizer
from polarjax.engine.patience import Patience
from polarjax.engine.skipped import make_count
from polarjax.engine.state import TrainState, to_host
from polarjax.engine.step import make_initialize, make_train_step
from polarjax.engine.tally import Tally
from polarjax.engine.watchdog import Watchdog
from polarjax.engine.writer import Writer

AGAIN = "run the same line again"


class _Begin(NamedTuple):
    """Where a run begins, and what has to be told.

    Attributes:
      patience: what is saved of `Patience`, {} in the beginning.
      due: whether the evaluation and the log line of the state's step were interrupted, and come first.
      saved: whether the state has a checkpoint.
      changes: values of the config that changed since the run began.
      source: what is kept of the run that it started from, None without one; see `warm_start.Start`.
    """

    state: TrainState
    tally: Tally
    patience: Mapping[str, Any]
    due: bool
    saved: bool
    warnings: list[str]
    changes: list[dict[str, Any]]
    source: dict[str, Any] | None


INITIAL_ROWS = 512  # that what a model learns of its data before the first step comes from, at most


def train(
    config: Any,
    system: System,
    data: Data,
    workdir: str | Path,
    *,
    stop: Callable[[int], bool] | None = None,
    allowed_changes: Collection[str] = (),
    break_lock: bool = False,
) -> TrainState:
    """Trains a system to config.train.num_steps or until its patience ends, from its last checkpoint if there is one.

    Args:
      config: all sections; only seed, init_from, data.batch_size, optim and train are read here, all are saved.
      system: the model and its losses.
      data: the batches, a function of the step.
      workdir: folder of the run; the same call continues it, bit by bit as if it had not been interrupted.
      stop: step -> whether to save and leave after it.
      allowed_changes: config values, as 'optim.clip_norm', that may differ from those of the run in the folder.
      break_lock: whether to take the folder from a process that is gone; see `workdir.claim`.

    Returns:
      The state after the last step, on the devices.

    Raises:
      ConfigError: the config does not fit the model, the devices, the run in the folder or that of another process.
      DataError: the sessions are not those of the run in the folder or of another process.
      CheckpointError: the folder cannot be used, all its checkpoints are damaged, or saves fail again and again.
      NumericError: config.train.max_skipped steps in a row were not finite.
      Interrupted: `stop` answered True; the state is saved.
    """
    clock, workdir, batch_size = Clock(), Path(workdir), config.data.batch_size
    settings, optim = validate(config)
    run = folders.agree_on_run(config, data.info)
    mesh, put_request = _share(batch_size, optim.micro_batches, len(data.info.sessions))
    resident = sharding.put_replicated(data.resident, mesh)
    example = sharding.first_rows(put_request(data.train(0)), mesh, INITIAL_ROWS)
    params = _abstract_params(system, data, resident, example)
    optimizer = make_optimizer(optim, system.param_group, params, settings.num_steps)
    train_step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=optim.deterministic)
    evaluate = clock.timed("evaluation", make_evaluation(system, data, mesh, put_request, resident, config))
    with folders.claim(workdir, break_lock=break_lock), ProgramCount(clock.compiled) as programs:
        initialize = make_initialize(system, optimizer, data.fetch, config.seed)
        found = _begin(workdir, run, system, initialize, resident, example, mesh, allowed_changes, clock)
        state, tally, start, total = found.state, found.tally, int(found.state.step), settings.num_steps
        patience = Patience(settings.best_metric, settings.patience, found.patience)
        run |= {"changes": found.changes, "init_from": found.source}
        folders.write_config(workdir, run["config"])
        with (
            Writer(workdir, start=start - found.due, total=total, primary=jax.process_index() == 0) as writer,
            _open_checkpoints(workdir, settings) as saver,
            Watchdog(settings.watchdog_minutes) as watchdog,
            clock.told_to(writer.say),
        ):
            _tell_begin(writer, found, mesh, optim, system, params)
            count = make_count(tally, data, workdir, writer, settings.max_skipped)
            if (start == total or patience.reason) and not found.due:
                return state
            save, pending = clock.timed("checkpoint", saver.save), None
            if not found.saved:
                save(state, _record(run, {}, tally, patience), wait=True)
            watchdog.alive(long=True)
            shapes = (state, resident, put_request(data.train(start)))
            compiled = _compile(train_step, shapes, batch_size, writer, clock)
            for step in range(start + (not found.due), total + 1):
                if step > start:
                    watchdog.alive()
                    waiting = time.monotonic()
                    request = put_request(data.train(step - 1))
                    idle = pending is None or pending["train/loss"].is_ready()
                    clock.count(time.monotonic() - waiting, device_idle=idle, again=step <= writer.reached)
                    state, scalars = compiled(state, resident, request)
                    # The device works on this step while the numbers of the one before are read.
                    count(step - 1, pending)
                    pending = scalars
                    writer.advance(step)
                leaving = stop is not None and stop(step)
                last, logs, evaluates, saves = _intervals(settings, step)
                if not (leaving or logs or evaluates or saves):
                    continue
                count(step, pending)
                pending, numbers = None, clock.take(batch_size) if logs else {}
                with clock.pause():
                    watchdog.alive(long=True)
                    metrics = evaluate(state, _polling(stop, step, watchdog)) if evaluates else {}
                    if leaving or metrics is None:
                        save(state, _record(run, {}, tally, patience, logs or evaluates), wait=True)
                        raise Interrupted(f"stopped at step {step} and saved; to continue, {AGAIN}")
                    last |= evaluates and patience.add(step, metrics)
                    if logs or last:
                        numbers |= tally.take() | programs.take() | _values(system, optimizer, state, step)
                    if logs or evaluates:
                        writer.write(step, numbers | metrics)
                    if saves or last:
                        _say(writer, save(state, _record(run, metrics, tally, patience), wait=last), patience)
                    programs.settle(step - start, logs, evaluates, writer.say)
                if last:
                    break
    return state


def _share(batch_size: int, micro_batches: int, sessions: int) -> tuple[Mesh, Callable[[PyTree], PyTree]]:
    """Returns the devices, and the function that sends a request to them."""
    mesh, shares = (
        sharding.make_mesh(micro_batches),
        {"batch_size": batch_size, "micro_batches": micro_batches},
    )
    sharding.check_sharing(**shares, sessions=sessions)
    return mesh, functools.partial(sharding.put_request, mesh=mesh, **shares)


def _open_checkpoints(workdir: Path, settings: TrainConfig) -> checkpoints.Checkpoints:
    keep = {name: getattr(settings, name) for name in ("keep_latest", "keep_best", "best_metric")}
    return checkpoints.Checkpoints(workdir, **keep)


def _compile(
    step: jax.stages.Wrapped, arguments: tuple[Any, ...], batch_size: int, writer: Writer, clock: Clock
) -> Callable[..., Any]:
    """Compiles the train step once for the whole run: a request of another shape would be an error, not a delay."""
    begin = time.monotonic()
    with clock.spend("compile"), memory_errors(batch_size):
        compiled = step.lower(*arguments).compile()
    seconds, memory = time.monotonic() - begin, check_memory(compiled, jax.local_devices()[0], batch_size)
    writer.say(f"compiled in {seconds:.1f} s; {memory}")
    clock.restart()

    def run(*arguments):
        with memory_errors(batch_size):
            return compiled(*arguments)

    return run


def _intervals(settings: TrainConfig, step: int) -> tuple[bool, bool, bool, bool]:
    """Returns whether a step is the last one, and whether it is logged, evaluated and saved.

    Where an evaluation may end the run, it is logged: the numbers since the line before are those of the last line.
    """
    last = step == settings.num_steps
    logs, evaluates, saves = (
        last or step % every == 0 for every in (settings.log_every, settings.eval_every, settings.save_every)
    )
    return last, logs or (evaluates and settings.patience > 0), evaluates, saves


def _values(system: System, optimizer: Optimizer, state: TrainState, step: int) -> dict[str, Any]:
    """Returns the learning rates of a step and what the model reports of its parameters."""
    rates = {f"optim/lr_{name}": rate for name, rate in optimizer.learning_rates(step - 1).items()}
    return rates | system.constants(jax.device_get(state.params))


def _record(
    run: dict[str, Any], metrics: dict[str, Any], tally: Tally, patience: Patience, due: bool = False
) -> dict[str, Any]:
    """Returns what a checkpoint keeps of the run and its step, so that a run resumed there goes on and ends alike."""
    return run | {
        "due": due,
        "metrics": metrics,
        "tally": tally.to_dict(),
        "patience": patience.to_dict(),
        "ended": patience.reason,
    }


def _tell_begin(
    writer: Writer, found: _Begin, mesh: Mesh, optim: OptimConfig, system: System, params: PyTree
) -> None:
    told = found.warnings + sharding.describe_mesh(mesh, optim.micro_batches)
    writer.say("\n".join([*told, describe_groups(optim, system.param_group, params)]))


def _say(writer: Writer, warnings: list[str], patience: Patience) -> None:
    for warning in warnings:
        writer.say(f"warning: {warning}; training goes on, the next interval saves again")
    if patience.reason:
        writer.say(f"the run has ended: {patience.reason}")


def _polling(stop: Callable[[int], bool] | None, step: int, watchdog: Watchdog) -> Callable[[], bool]:
    """Returns what an evaluation asks between two batches: whether to leave. Several processes leave after a step."""

    def polled() -> bool:
        watchdog.alive()
        return stop is not None and jax.process_count() == 1 and stop(step)

    return polled


def _abstract_params(system: System, data: Data, resident: PyTree, rows: PyTree) -> PyTree:
    """Returns the shapes of the parameters without computing them."""

    def init(resident, rows):
        return system.init(jax.random.key(0), data.fetch(resident, rows))["params"]

    return jax.eval_shape(init, resident, rows)


def _begin(
    workdir: Path,
    run: dict[str, Any],
    system: System,
    initialize: Callable[..., Any],
    resident: PyTree,
    rows: PyTree,
    mesh: Mesh,
    allowed_changes: Collection[str],
    clock: Clock,
) -> _Begin:
    """Returns the newest intact state of the folder, or a new one, which may start from that of another run."""
    abstract = functools.partial(jax.eval_shape, initialize, resident, rows)
    with clock.spend("restore"):
        saved, damages = checkpoints.latest_intact(workdir)
    if saved is None:
        given, source, told = warm_start.read_start(run, system.param_group, abstract)
        first = to_host(initialize(sharding.on_one_device(resident), rows, given))
        if source:
            source |= {"constants": {name: float(x) for name, x in system.constants(first.params).items()}}
        return _Begin(sharding.put_replicated(first, mesh), Tally(), {}, False, False, told, [], source)
    state, meta = saved
    changes = folders.refuse_other_run(workdir, meta, run, allowed_changes)
    matched = checkpoints.match_state(state, abstract())
    told = [
        *(f"warning: {damage}" for damage in damages),
        *(
            f"config.{new['name']} was {new['before']!r} and is {new['after']!r} from here on"
            for new in changes
        ),
        f"continuing from step {meta['step']}",
        *([f"the run has ended: {meta['ended']}"] if meta.get("ended") and not changes else []),
    ]
    return _Begin(
        sharding.put_replicated(matched, mesh),
        Tally(meta["tally"]),
        meta.get("patience", {}),
        meta.get("due", False),
        True,
        told,
        meta.get("changes", []) + changes,
        meta.get("init_from"),
    )
