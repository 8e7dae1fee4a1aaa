"""Checkpoints of a run: saved asynchronously and atomically, the newest and the best kept, restored anywhere."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from polarjax.core import CheckpointError, PyTree
from polarjax.engine.agreement import begin_together, fail_together
from polarjax.engine.archive import (
    ASIDE,
    FOLDER,
    DamagedCheckpoint,
    checkpoint_folder,
    choose_step,
    damaged,
    digest_of_json,
    finite,
    list_steps,
    metric_of,
    read_contents,
    read_meta,
    replace_meta,
    seal,
)
from polarjax.engine.state import TrainState, flatten, nest, to_host
from polarjax.engine.storage import check_free_space, storage_errors, sync_folder

TRASH = ".trash"
UNFINISHED = "*.orbax-checkpoint-tmp*"
FIELDS = ("step", "params", "target_params", "model_state", "opt_state", "rng")
FAILURES_IN_A_ROW = 3


class Checkpoints:
    """Saves the states of a run; a context manager, because leaving without waiting would lose the last one."""

    def __init__(self, workdir: Path, *, keep_latest: int, keep_best: int, best_metric: str):
        """Opens <workdir>/checkpoints for writing and removes what a killed run left half done.

        Args:
          workdir: folder of the run, claimed by this process.
          keep_latest: number of newest checkpoints that stay.
          keep_best: number of checkpoints with the highest `best_metric` that stay as well.
          best_metric: name among the metrics handed to `save`.
        """
        self._workdir, self._folder, self._best_metric = workdir, workdir / FOLDER, best_metric
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._saving: tuple[int, float | None] | None = None  # step and rank of the save that runs
        self._failures = 0
        self._values = {step: metric_of(workdir, step, best_metric) for step in list_steps(workdir)}
        self._sweep()
        self._options = ocp.CheckpointManagerOptions(
            # Orbax would remove a step before the one that takes its place is on the disk: `_prune` does it.
            max_to_keep=None,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._sync_written,
                # Made in the background, a folder that cannot be made leaves threads that wait for it for minutes.
                create_directories_asynchronously=False,
            ),
        )
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        with storage_errors(self._folder, "a checkpoint"):
            self._folder.mkdir(parents=True, exist_ok=True)
            return ocp.CheckpointManager(
                self._folder.absolute(), options=self._options, item_names=("state", "meta")
            )

    def _reopen(self) -> None:
        """Begins anew after a failed save: the parts of a manager keep the error, and the next save would get it."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._manager.close()
        self._sweep()
        self._manager = self._open()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            with storage_errors(self._folder, "a checkpoint"):
                try:
                    self._commit()
                finally:
                    self._manager.close()
        finally:
            self._sweep()

    def save(self, state: TrainState, meta: dict[str, Any], *, wait: bool = False) -> list[str]:
        """Starts to write a checkpoint of the state's step; first the one before is committed.

        Where the step has a checkpoint, its arrays are those of the state, and its meta alone is replaced.

        Args:
          state: on the devices; copied before the call returns, so that it may be donated.
          meta: JSON fields beside step and digests; meta['metrics'] ranks the checkpoint.
          wait: return only when it is committed.

        Returns:
          A warning for each save that failed: the next one is another attempt.

        Raises:
          CheckpointError: the storage refused three saves in a row, or one that has to be committed now.
        """
        tree, meta = _pack(state, meta)
        warnings: list[str] = []
        for final, part in ((False, self._commit), (wait, lambda: self._start(tree, meta, wait))):
            try:
                with storage_errors(self._folder, "a checkpoint"):
                    part()
            except CheckpointError as error:
                self._failures, self._saving = self._failures + 1, None
                # Several processes save together: where one of them cannot, all have to stop.
                if final or jax.process_count() > 1 or (self._failures >= FAILURES_IN_A_ROW and not wait):
                    raise
                self._reopen()
                warnings.append(str(error))
        return warnings

    def _start(self, tree: PyTree, meta: dict[str, Any], wait: bool) -> None:
        step, value = meta["step"], finite(meta["metrics"].get(self._best_metric))
        if step in self._values:
            if jax.process_index() == 0:
                replace_meta(self._workdir, step, meta)
            self._values[step] = value
            return
        check_free_space(self._folder, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(tree), meta=ocp.args.JsonSave(meta))
        self._saving = step, value
        self._manager.save(step, args=items, force=True)
        if wait:
            self._commit()

    def _sync_written(self) -> None:
        """Brings a checkpoint to the disk before it gets the name of its step; called by the thread that commits."""
        for entry in self._folder.glob(UNFINISHED):
            sync_folder(entry)

    def _commit(self) -> None:
        """Waits for the save that runs; when it is listed and on the disk, what it makes superfluous is removed."""
        self._manager.wait_until_finished()
        if self._saving is not None:
            step, value = self._saving
            if jax.process_index() == 0:
                sync_folder(checkpoint_folder(self._workdir, step))
            self._values[step] = value
            self._saving, self._failures = None, 0
        self._prune()

    def _prune(self) -> None:
        """Removes all but the newest checkpoints and those with the highest value; of equal ones the newer stays."""
        ranked = sorted((value, step) for step, value in self._values.items() if value is not None)
        best = [step for _, step in ranked[::-1][: self._keep_best]]
        for step in set(self._values) - {*sorted(self._values)[-self._keep_latest :], *best}:
            del self._values[step]
            if jax.process_index() == 0:
                # Renamed before it is deleted: no step is ever half there.
                (self._folder / TRASH).mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    checkpoint_folder(self._workdir, step).rename(self._folder / TRASH / str(step))
        self._empty_trash()

    def _sweep(self) -> None:
        """Removes what a killed run left half written or half deleted."""
        self._empty_trash()
        if jax.process_index() == 0 and self._folder.is_dir():
            for entry in self._folder.glob(UNFINISHED):
                shutil.rmtree(entry, ignore_errors=True)

    def _empty_trash(self) -> None:
        if jax.process_index() == 0 and (self._folder / TRASH).is_dir():
            for entry in (self._folder / TRASH).iterdir():
                shutil.rmtree(entry, ignore_errors=True)


def restore(workdir: str | Path, step: int | str | None = None) -> tuple[TrainState, dict[str, Any]]:
    """Reads a checkpoint without its config, its data or its devices.

    Args:
      workdir: folder of the run.
      step: a step; 'latest' or None for the newest; 'best' for the highest config.train.best_metric (the
        newest where none was evaluated).

    Returns:
      The state with NumPy leaves in nested dicts (opt_state too, by the names of its fields), and its meta.

    Raises:
      CheckpointError: no such checkpoint, or a damaged one.
    """
    return _read(workdir, choose_step(workdir, step))


def latest_intact(workdir: Path) -> tuple[tuple[TrainState, dict[str, Any]] | None, list[str]]:
    """Reads the newest checkpoint that is not damaged; None where the run has not saved yet.

    Returns:
      The checkpoint and one warning for each damaged one; those are set aside as `corrupt-<step>`.

    Raises:
      CheckpointError: there are checkpoints and all are damaged, one has another format, or the processes of a run do
        not find the same one.
    """
    with fail_together():
        found, problems = _newest_intact(workdir)
    begin = (
        "the start" if found is None else f"step {found[1]['step']}, sha256 {digest_of_json(found[1])[:8]}"
    )
    begin_together(workdir, begin, list(problems.values()))
    _set_aside(workdir / FOLDER, list(problems))
    return found, list(problems.values())


def _newest_intact(workdir: Path) -> tuple[tuple[TrainState, dict[str, Any]] | None, dict[int, str]]:
    """Returns the newest checkpoint that is not damaged, and {step: what is wrong} of the newer ones."""
    problems: dict[int, str] = {}
    found = None
    for step in reversed(list_steps(workdir)):
        try:
            found = _read(workdir, step)
            break
        except DamagedCheckpoint as error:
            problems[step] = str(error)
    if problems and found is None:
        listed = "; ".join(problems.values())
        raise CheckpointError(
            f"no checkpoint of {workdir} is intact, and the run is not started again from 0: {listed}"
        )
    return found, problems


def match_state(saved: TrainState, abstract: TrainState) -> TrainState:
    """Puts the arrays of a restored state into the structure of the running program.

    Args:
      saved: from `restore`.
      abstract: the state's structure, with shapes and dtypes.

    Raises:
      CheckpointError: naming the first array that is missing, left over or of another shape or dtype.
    """
    leaves, expected = flatten(saved), flatten(abstract)
    for path in sorted(set(leaves) ^ set(expected)):
        holder, other = ("model", "checkpoint") if path in expected else ("checkpoint", "model")
        raise CheckpointError(
            f"the {holder} has {path} and the {other} has not; the program has changed since the run "
            "started: use another --workdir"
        )
    for path, leaf in expected.items():
        if (leaves[path].shape, leaves[path].dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{path} is {leaves[path].dtype}{list(leaves[path].shape)} in the checkpoint and "
                f"{leaf.dtype}{list(leaf.shape)} in the model; use another --workdir"
            )
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[path] for path in expected])


def _pack(state: TrainState, meta: dict[str, Any]) -> tuple[PyTree, dict[str, Any]]:
    """Copies a state to the host and completes its meta with the step and the digests."""
    leaves = flatten(to_host({name: getattr(state, name) for name in FIELDS}))
    return nest(leaves), seal(leaves, meta)


def _read(workdir: str | Path, step: int) -> tuple[TrainState, dict[str, Any]]:
    """Reads one checkpoint; raises where an array is not what was written."""
    meta = read_meta(workdir, step)
    contents = read_contents(workdir, step, meta)
    for problem in contents.problems.values():
        raise damaged(workdir, step, problem)
    empty = {**dict.fromkeys(FIELDS), "model_state": {}, "opt_state": {}}
    return TrainState(**{**empty, **nest(contents.leaves)}), meta


def _set_aside(folder: Path, steps: list[int]) -> None:
    if jax.process_index() == 0:
        for step in steps:
            shutil.rmtree(folder / f"{ASIDE}{step}", ignore_errors=True)
            (folder / str(step)).rename(folder / f"{ASIDE}{step}")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("polarjax: damaged checkpoints are set aside")
