import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.engine import sharding
from polarjax.engine.optim import OptimConfig, make_optimizer
from polarjax.engine.state import flatten, to_host
from polarjax.engine.step import all_finite, make_eval_step, make_initialize, make_train_step, metric_name
from tests.engine import toy


@pytest.fixture(scope="module")
def parts():
    """Everything a step needs: data, system, mesh, data on the devices, a step, its first state and its requests."""
    data, system, mesh = toy.make_data(not_finite=(1,)), toy.make_system(), sharding.make_mesh(4)
    resident = sharding.put_replicated(data.resident, mesh)
    config = OptimConfig.read(toy.make_config(**{"optim.warmup_steps": 0}).optim, 12)
    params = system.init(jax.random.key(0), data.fetch(data.resident, data.train(0)))["params"]
    optimizer = make_optimizer(config, system.param_group, params, 12)

    def put(request):
        return sharding.put_request(request, mesh, batch_size=8, micro_batches=4)

    first = to_host(make_initialize(system, optimizer, data.fetch, 0)(data.resident, data.train(0)))
    step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=True)
    return data, system, mesh, resident, step, lambda: sharding.put_replicated(first, mesh), put


def test_a_step_that_is_not_finite_changes_nothing_but_the_counter(parts):
    data, _, _, resident, step, initialize, put = parts
    before = to_host(initialize())
    state, scalars = step(initialize(), resident, put(data.train(1)))
    assert not scalars["finite"] and int(state.step) == 1
    after = flatten(state.replace(step=before.step))
    for path, leaf in flatten(before).items():
        assert np.asarray(after[path]).tobytes() == leaf.tobytes(), path


def test_a_finite_step_moves_the_parameters_the_moments_and_the_running_mean(parts):
    data, _, _, resident, step, initialize, put = parts
    before = to_host(initialize())
    state, scalars = step(initialize(), resident, put(data.train(0)))
    assert scalars["finite"] and scalars["train/grad_norm"] > 0
    for name in ("params", "opt_state", "model_state"):
        assert any(
            np.any(np.asarray(leaf) != flatten(getattr(before, name))[path])
            for path, leaf in flatten(getattr(state, name)).items()
        ), name


def test_the_state_is_donated(parts):
    data, _, _, resident, step, initialize, put = parts
    state = initialize()
    step(state, resident, put(data.train(0)))
    assert state.params["core"]["kernel"].is_deleted()


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_sums_over_all_rows_of_a_batch(parts, deterministic):
    data, system, mesh, resident, _, initialize, put = parts
    evaluate = make_eval_step(system, data.fetch, mesh, deterministic=deterministic)
    sums = [
        float(evaluate(initialize(), resident, put(request))["spikes"]) for request in data.evaluation(1, 8)
    ]
    assert sum(sums) == data.resident["spikes"][48:72].sum()


def test_every_kind_of_number_that_is_not_finite_is_found():
    assert all_finite({"a": jnp.ones(3), "count": jnp.arange(3)})
    assert not all_finite({"a": jnp.ones(3), "b": jnp.asarray([1.0, jnp.inf])})
    assert not all_finite({"a": jnp.asarray(jnp.nan)})


def test_a_metric_keeps_its_own_path():
    assert metric_name("train", "loss_poisson") == "train/loss_poisson"
    assert metric_name("train", "temporal/tau_fix_ms") == "temporal/tau_fix_ms"


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_that_nobody_wants_is_not_computed(frozen):
    data, system, mesh, computed = toy.make_data(), toy.make_system(), sharding.make_mesh(1), []

    @jax.custom_vjp
    def watched(kernel):
        return kernel

    def back(_, slope):
        computed.append(slope.shape)
        return (slope,)

    watched.defvjp(lambda kernel: (kernel, None), back)

    def loss(params, state, batch, rng):
        core = {**params["core"], "kernel": watched(params["core"]["kernel"])}
        return system.loss({**params, "core": core}, state, batch, rng)

    group = None if frozen else {"learning_rate": 0.1, "weight_decay": 0.0}
    config = OptimConfig.read(toy.make_config(**{"optim.groups.core": group}).optim, 12)
    first = data.train(0)
    params = jax.eval_shape(system.init, jax.random.key(0), data.fetch(data.resident, first))["params"]
    optimizer = make_optimizer(config, system.param_group, params, 12)
    state = jax.eval_shape(make_initialize(system, optimizer, data.fetch, 0), data.resident, first)
    step = make_train_step(system._replace(loss=loss), optimizer, data.fetch, mesh, deterministic=True)
    request = {name: rows.reshape(4, 2) for name, rows in first.items()}
    jax.eval_shape(step, state, data.resident, request)
    assert bool(computed) is not frozen
