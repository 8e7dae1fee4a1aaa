"""The compiled steps: one update of the state, one addition to the sums of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from polarjax.core import LossOutput, PyTree, System
from polarjax.engine.optim import Optimizer
from polarjax.engine.sharding import replicated, split
from polarjax.engine.state import TrainState


def make_train_step(
    system: System, optimizer: Optimizer, fetch: Callable[..., Any], mesh: Mesh
) -> jax.stages.Wrapped:
    """Compiles (state, resident, request [K, B/K, ..]) -> (state, scalars). The old state is donated.

    A step whose loss, gradient or result is not finite changes nothing but the step counter; the scalar
    'finite' tells. The other scalars are 'clipped' (1 where the gradient was scaled down) and metrics by name.
    Gradients, losses and scalars are averaged over the K micro-batches.
    """

    def train_step(state: TrainState, resident: PyTree, request: PyTree):
        output, gradients = _accumulate(system, fetch, mesh, state, resident, request)
        gradients = optimizer.trained(gradients)
        norm = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, state.step)
        new = state.replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            model_state=output.model_state,
        )
        finite = all_finite((output.loss, norm, new.params, new.model_state))
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        scalars = {
            "train/loss": output.loss,
            **{metric_name("train", name): value for name, value in output.scalars.items()},
            "train/grad_norm": norm,
            "clipped": norm > optimizer.clip_norm,
            "finite": finite,
        }
        return new.replace(step=state.step + 1), scalars

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def make_eval_step(system: System, fetch: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles (state, resident, request [1, B, ..], sums) -> sums with those of the batch added."""

    def eval_step(state: TrainState, resident: PyTree, request: PyTree, sums: PyTree):
        batch = _fetch(fetch, mesh, resident, first_micro_batch(request))
        return jax.tree.map(jnp.add, sums, system.eval_sums(state, batch))

    return jax.jit(eval_step, donate_argnums=3, out_shardings=replicated(mesh))


def metric_name(prefix: str, name: str) -> str:
    """Returns a metric's path: names without one get the prefix."""
    return name if "/" in name else f"{prefix}/{name}"


def first_micro_batch(request: PyTree) -> PyTree:
    """Returns the rows [B/K, ..] of the first of K micro-batches."""
    return jax.tree.map(lambda leaf: leaf[0], request)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Tells whether no floating-point leaf of the tree holds a NaN or an infinity."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()


def _accumulate(system: System, fetch, mesh: Mesh, state: TrainState, resident: PyTree, request: PyTree):
    """Averages over the micro-batches; each has its own key and sees the model state that the one before left."""
    count = jax.tree.leaves(request)[0].shape[0]
    keys = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step), count)

    def gradient(model_state, part, key):
        current = state.replace(model_state=model_state)
        batch = _fetch(fetch, mesh, resident, part)

        def objective(params):
            output = system.loss(params, current, batch, key)
            return output.loss, output

        gradients, output = jax.grad(objective, has_aux=True)(state.params)
        return output, gradients

    if count == 1:
        return gradient(state.model_state, first_micro_batch(request), keys[0])

    def body(carry, part_and_key):
        model_state, sums = carry
        output, gradients = gradient(model_state, *part_and_key)
        sums = jax.tree.map(jnp.add, sums, (output.loss, output.scalars, gradients))
        return (output.model_state, sums), None

    shapes = jax.eval_shape(gradient, state.model_state, first_micro_batch(request), keys[0])
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0].loss, shapes[0].scalars, shapes[1])
    )
    (model_state, sums), _ = jax.lax.scan(body, (state.model_state, zeros), (request, keys))
    loss, scalars, gradients = jax.tree.map(lambda leaf: leaf / count, sums)
    return LossOutput(loss, scalars, model_state), gradients


def _fetch(fetch, mesh: Mesh, resident: PyTree, part: PyTree) -> Any:
    return jax.lax.with_sharding_constraint(fetch(resident, part), split(mesh))
