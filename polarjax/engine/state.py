"""The training state: a frozen tree of arrays that is donated, compared and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from polarjax.core import PyTree, System

Given = dict[
    str, tuple[Any, Any]
]  # {path of a variable: (where, True for everywhere; values)}, as in 'params/core/kernel'


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step reads and writes.

    Attributes:
      step: number of steps done, skipped ones included.
      params: nested dict of the trained parameters.
      target_params: parameters of a slowly moving copy of the model, None without one.
      model_state: the other Flax collections, such as running statistics; {} without any.
      opt_state: moments of the optimizer.
      rng: key data (uint32) of the run; step t draws from fold_in(rng, t).
    """

    step: Any
    params: PyTree
    target_params: PyTree
    model_state: PyTree
    opt_state: PyTree
    rng: Any


def initial_state(
    system: System, init_optimizer, batch, seed: int, given: Mapping[str, tuple[Any, Any]] | None = None
) -> TrainState:
    """Draws the parameters and starts the optimizer; traced inside jit.

    What is given replaces what is drawn, and what `System.measure` makes of the batch is that of the given parameters.

    Args:
      system: the system whose `init` is called once.
      init_optimizer: params -> opt_state.
      batch: a batch of the shapes of training; its values do not matter.
      seed: config.seed.
      given: from a trained run, see `warm_start.read_start`; None or {} for nothing.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = dict(system.init(init_key, batch))
    if given:
        variables = dict(_overlay(system.measure(_overlay(variables, given), batch), given))
    params, target = variables.pop("params"), variables.pop("target", None)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params=target,
        model_state=variables,
        opt_state=init_optimizer(params),
        rng=jax.random.key_data(run_key),
    )


def _overlay(variables: PyTree, given: Mapping[str, tuple[Any, Any]]) -> PyTree:
    def put(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.where(*given[name], leaf) if name in given else leaf

    return jax.tree_util.tree_map_with_path(put, variables)


def flatten(tree: PyTree) -> dict[str, Any]:
    """Returns {path: leaf} with the keys of a path joined by '/', as in 'params/core/kernel'."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nest(leaves: dict[str, Any]) -> dict[str, Any]:
    """Rebuilds nested dicts from {path: leaf}; empty branches do not come back."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *branches, name = path.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[name] = leaf
    return tree


def to_host(tree: PyTree) -> PyTree:
    """Copies a tree of replicated device arrays to NumPy arrays that no later step can overwrite."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(tree))
