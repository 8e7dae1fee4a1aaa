"""The compiled steps: one update of the state, one addition to the sums of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from polarjax.core import PyTree, System
from polarjax.engine.optim import Optimizer
from polarjax.engine.sharding import on_every_device, sum_micro_batches
from polarjax.engine.state import Given, TrainState, initial_state


def make_initialize(
    system: System, optimizer: Optimizer, fetch: Callable[..., Any], seed: int
) -> jax.stages.Wrapped:
    """Compiles (resident, rows [b, ..], given) -> the state before the first step; see `initial_state`.

    It is computed on one device, by the same program however many there are, and then copied to all.
    """

    def initialize(resident: PyTree, rows: PyTree, given: Given | None = None):
        return initial_state(system, optimizer.init, fetch(resident, rows), seed, given)

    return jax.jit(initialize)


def make_train_step(
    system: System, optimizer: Optimizer, fetch: Callable[..., Any], mesh: Mesh, *, deterministic: bool
) -> jax.stages.Wrapped:
    """Compiles (state, resident, request [K, B/K, ..]) -> (state, scalars). The old state is donated.

        loss(params) = 1/K sum_k system.loss(params, state, micro-batch k, key k)

    This, and not the mean over B rows, is what a step minimises: a loss may be a ratio, such as a masked mean,
    which no mean over devices would give back. Each micro-batch has its own key and is computed whole on one
    device, so the definition does not know how many devices there are. Scalars are averaged alike, and the model
    state and the target parameters move by the mean of the K changes that the micro-batches make to them. A loss of
    all rows together is given the mean of `system.pool` over the micro-batches, from a pass of its own before.

    A step whose loss, gradient or result is not finite changes nothing but the step counter; the scalar
    'finite' tells. The other scalars are 'clipped' (1 where the gradient was scaled down) and metrics by name.

    Args:
      deterministic: whether the last bits do not know the number of devices either; see `sum_micro_batches`.
    """

    def micro_batch(
        state: TrainState, resident: PyTree, rows: PyTree, key: Array, pooled: tuple[PyTree, ...]
    ):
        batch = fetch(resident, rows)

        def objective(params):
            output = system.loss(optimizer.hold(params), state, batch, key, *pooled)
            return output.loss, output

        gradients, output = jax.grad(objective, has_aux=True)(state.params)
        change = jax.tree.map(jnp.subtract, (output.model_state, output.target_params), _followers(state))
        return output.loss, output.scalars, gradients, change

    def pool_all(state: TrainState, resident: PyTree, request: PyTree) -> tuple[PyTree, ...]:
        if system.pool is None:
            return ()
        pool = system.pool

        def part(rows, index, count):
            del index, count
            return pool(state, fetch(resident, rows))

        sums, count = sum_micro_batches(part, request, deterministic=deterministic)
        return (jax.tree.map(lambda total: total / count, sums),)

    def train_step(state: TrainState, resident: PyTree, request: PyTree):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        pooled = pool_all(state, resident, request)

        def numbered(rows, index, count):
            return micro_batch(state, resident, rows, jax.random.split(key, count)[index], pooled)

        sums, count = sum_micro_batches(numbered, request, deterministic=deterministic)
        loss, scalars, gradients, change = jax.tree.map(lambda total: total / count, sums)
        norm = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, state.step)
        progress = (state.step + 1) / optimizer.num_steps
        new = state.replace(
            params=system.project(optax.apply_updates(state.params, updates), progress),
            target_params=optax.apply_updates(state.target_params, change[1]),
            model_state=optax.apply_updates(state.model_state, change[0]),
            opt_state=opt_state,
        )
        finite = all_finite((loss, norm, new.params, new.model_state, new.target_params))
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        scalars = {
            "train/loss": loss,
            **{metric_name("train", name): value for name, value in scalars.items()},
            "train/grad_norm": norm,
            "clipped": norm > optimizer.clip_norm,
            "finite": finite,
        }
        return new.replace(step=state.step + 1), scalars

    return jax.jit(on_every_device(train_step, mesh, split=2), donate_argnums=0)


def make_eval_step(
    system: System, fetch: Callable[..., Any], mesh: Mesh, *, deterministic: bool
) -> jax.stages.Wrapped:
    """Compiles (state, resident, request [K, B/K, ..]) -> sums of the batch, for `System.eval_metrics`."""

    def eval_step(state: TrainState, resident: PyTree, request: PyTree):
        def micro_batch(rows, index, count):
            del index, count
            return system.eval_sums(state, fetch(resident, rows))

        return sum_micro_batches(micro_batch, request, deterministic=deterministic)[0]

    return jax.jit(on_every_device(eval_step, mesh, split=2))


def _followers(state: TrainState) -> tuple[PyTree, PyTree]:
    """Returns what moves with the parameters and without a gradient."""
    return state.model_state, state.target_params


def metric_name(prefix: str, name: str) -> str:
    """Returns a metric's path: names without one get the prefix."""
    return name if "/" in name else f"{prefix}/{name}"


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Tells whether no floating-point leaf of the tree holds a NaN or an infinity."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()
