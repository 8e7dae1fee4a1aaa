"""A trained run, opened from its checkpoint alone."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import ml_collections

from polarjax.core import DataInfo, PyTree
from polarjax.engine import checkpoints


class Run(NamedTuple):
    """What a checkpoint knows.

    Attributes:
      workdir: where it lies.
      step: of the checkpoint.
      chosen_by: metric of the validation tier that is best here, 'latest', or 'step' for one that was asked for.
      config: the resolved config of the run, read only.
      info: sessions, units and geometry that the model was made for.
      params: nested dict of NumPy arrays.
      model_state: the other Flax collections.
      target_params: the slowly moving copy of a self-supervised run, None without one.
      source: what `warm_start.read_start` recorded of the run that it started from, None without one.
    """

    workdir: pathlib.Path
    step: int
    chosen_by: str
    config: ml_collections.FrozenConfigDict
    info: DataInfo
    params: PyTree
    model_state: PyTree
    target_params: PyTree
    source: dict[str, Any] | None = None


def open_run(workdir: str | os.PathLike[str], step: int | str | None = None) -> Run:
    """Reads a checkpoint; needs neither the data nor the config file, nor the devices it was written on.

    Args:
      step: step of a checkpoint, 'best' or 'latest'; None takes the best, by config.train.best_metric, and the latest
        where none was evaluated.

    Raises:
      CheckpointError: no such directory or step, or a damaged checkpoint.
    """
    folder = pathlib.Path(workdir)
    step = "best" if step is None else step
    state, meta = checkpoints.restore(folder, step)
    metric = meta["config"]["train"]["best_metric"]
    ranked = {"best": metric if metric in meta["metrics"] else "latest", "latest": "latest"}
    return Run(
        folder,
        int(meta["step"]),
        ranked.get(str(step), "step"),
        ml_collections.FrozenConfigDict(as_tuples(meta["config"])),
        DataInfo.from_dict(meta["info"]),
        state.params,
        state.model_state,
        state.target_params,
        meta.get("init_from"),
    )


def as_tuples(value: Any) -> Any:
    """Returns a value read from JSON with tuples for lists, as a config has them."""
    if isinstance(value, dict):
        return {name: as_tuples(entry) for name, entry in value.items()}
    return tuple(as_tuples(entry) for entry in value) if isinstance(value, list) else value
