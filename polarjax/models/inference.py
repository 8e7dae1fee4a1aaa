"""A trained model of one session: windows, and movies of any length piece by piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from polarjax.core import DataInfo, PyTree
from polarjax.models import silence
from polarjax.models.build import is_readout, make_module


def needs_gaze(config: Any, info: DataInfo) -> bool:
    """Whether the model of a config cannot predict without gaze."""
    return make_module(config, info).uses_gaze


def select_session(variables: PyTree, info: DataInfo, index: int, model_name: str) -> PyTree:
    """Cuts the readouts of all sessions [S, N, ..] down to those of one session's own units [1, n, ..]."""
    n_units = len(info.sessions[index].unit_ids)

    def cut(path: tuple, leaf: Any) -> Any:
        names = tuple(key.key for key in path)
        return leaf[index : index + 1, :n_units] if is_readout(model_name, names) else leaf

    return {**variables, "params": jax.tree_util.tree_map_with_path(cut, variables["params"])}


def make_predictors(config: Any, info: DataInfo, index: int) -> tuple[Callable, Callable, Callable]:
    """Makes the functions that predict movies of session `index`: windows, and movies piece by piece.

    Returns:
      window(variables, stimulus [B,T,H,W,C], gaze [B,T,2] or None) -> log rates [B,n] at the last frame, for the
      session's n units; initial(variables, batch_size) -> memory; and advance(variables, memory, stimulus, gaze) ->
      (memory, log rates [B,T,n]). `variables` is what `select_session` returns.
    """
    module: Any = make_module(config, dataclasses.replace(info, sessions=(info.sessions[index],)))

    def mean(variables: PyTree, log_rate: Array) -> Array:
        return silence.log_mean(variables["params"], log_rate) if module.zero_inflated else log_rate

    @jax.jit
    def window(variables: PyTree, stimulus: Array, gaze: Array | None) -> Array:
        return mean(variables, module.apply(variables, stimulus, gaze, 1, method="predict")[0])[:, 0]

    def initial(variables: PyTree, batch_size: int) -> PyTree:
        return module.apply(variables, batch_size, tuple(info.frame_shape[:2]), method="initial_memory")

    @jax.jit
    def advance(
        variables: PyTree, memory: PyTree, stimulus: Array, gaze: Array | None
    ) -> tuple[PyTree, Array]:
        memory, log_rate, _ = module.apply(variables, stimulus, gaze, memory, method="advance")
        return memory, mean(variables, log_rate)

    return window, initial, advance
