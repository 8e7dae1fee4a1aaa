"""Self-supervision in the system: what the loss adds up, what moves, and that codes do not collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polarjax.core import ConfigError
from polarjax.models.jepa_objective import followed
from polarjax.ops.target_network import target_decay
from tests.engine import tiny_polar

WEIGHTS = {"poisson": 1.0, "jepa": 0.5, "coding_rate": 0.1}
SEEDS = (0, 1, 2)


class State:
    """What a loss reads of the training state."""

    step = 2

    def __init__(self, variables):
        variables = dict(variables)
        self.params, self.target_params = variables.pop("params"), variables.pop("target", None)
        self.model_state = variables


def config_of(weights, **options):
    return tiny_polar.add_objective(tiny_polar.make_config(), weights, **options)


@pytest.fixture(scope="module")
def batch():
    data = tiny_polar.make_data()
    return jax.tree.map(jnp.asarray, data.fetch(data.resident, data.train(0)))


def loss_of(weights, batch, **options):
    """Returns the output of the loss, and its gradients."""
    system = tiny_polar.make_system(config_of(weights, **options))
    state = State(jax.jit(system.init)(jax.random.key(0), batch))

    def loss(params):
        output = system.loss(params, state, batch, jax.random.key(1))
        return output.loss, output

    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(state.params)
    return state, output, gradients


def test_the_total_is_the_weighted_sum_of_all_terms(batch):
    _, output, gradients = loss_of(WEIGHTS, batch)
    assert set(output.scalars) == {"loss_poisson", "loss_jepa", "loss_coding_rate"}
    total = sum(weight * output.scalars[f"loss_{name}"] for name, weight in WEIGHTS.items())
    np.testing.assert_allclose(output.loss, total, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_slow_copy_moves_towards_the_parameters_by_the_share_of_its_step(batch):
    config = config_of(WEIGHTS)
    system = tiny_polar.make_system(config)
    state = State(jax.jit(system.init)(jax.random.key(0), batch))
    for drawn, copied in zip(
        *map(jax.tree.leaves, (followed(state.params), state.target_params)), strict=True
    ):
        np.testing.assert_array_equal(drawn, copied)
    state.target_params = before = jax.tree.map(lambda leaf: leaf + 1, state.target_params)
    after = jax.jit(lambda: system.loss(state.params, state, batch, jax.random.key(1)).target_params)()
    share = 1 - target_decay(config.model.jepa.target_decay, State.step / config.train.num_steps)
    assert share > 1e-3
    moved = jax.tree.map(jnp.subtract, after, before)
    assert jax.tree.structure(after) == jax.tree.structure(followed(state.params))
    for leaf in jax.tree.leaves(moved):
        np.testing.assert_allclose(leaf, -share, rtol=1e-3)


def test_terms_of_self_supervision_without_its_section_are_named_with_the_remedy():
    config = config_of(WEIGHTS)
    with config.ignore_type():
        config.model.jepa = None
    with pytest.raises(
        ConfigError, match="has coding_rate, jepa, .* but config.model.jepa is not set; set it as"
    ):
        tiny_polar.make_system(config)


def test_without_a_likelihood_the_spikes_are_not_read_and_readouts_get_no_gradient(batch):
    _, output, gradients = loss_of({"jepa": 1.0}, batch._replace(spikes=jnp.full_like(batch.spikes, jnp.nan)))
    assert set(output.scalars) == {"loss_jepa"}
    assert np.isfinite(output.loss)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients["readout"]))
    assert np.abs(gradients["filters"]["even"]["kernel"]).max() > 0


def test_a_loss_with_neither_likelihood_nor_prediction_is_refused():
    with pytest.raises(
        ConfigError, match="exactly one of poisson, zero_inflated_poisson must be above 0, or none and"
    ):
        tiny_polar.make_system(config_of({"coding_rate": 1.0}))


def test_segments_that_are_not_longer_than_delta_are_refused_before_anything_is_computed():
    with pytest.raises(ConfigError, match="needs more than 5 frames, but segments have 5"):
        tiny_polar.make_system(config_of(WEIGHTS, deltas=(5,)))


def test_an_evaluation_says_how_well_is_predicted_and_how_collapsed_the_codes_are(batch):
    system = tiny_polar.make_system(config_of(WEIGHTS))
    state = State(jax.jit(system.init)(jax.random.key(0), batch))
    sums = jax.jit(lambda: system.eval_sums(state, batch))()
    once, twice = (system.eval_metrics(jax.tree.map(lambda x, n=n: n * np.asarray(x), sums)) for n in (1, 2))
    names = ("loss", "loss_other_gaze", "deviation", "cosine", "rank", "coding_rate", "rate")
    assert {f"jepa/{name}" for name in names} < set(once)
    assert 0 < once["jepa/loss"] < 2
    assert once["jepa/deviation"] == pytest.approx(once["jepa/deviation_0"])
    assert {name: value for name, value in twice.items() if "jepa" in name} == pytest.approx(
        {name: value for name, value in once.items() if "jepa" in name}
    )


def deviations_after(weights, steps=60):
    """Trains without a teacher and without a stopped gradient; returns the deviation of the codes for each seed."""
    system, data = tiny_polar.make_system(config_of(weights, target="none")), tiny_polar.make_data(16)
    optimizer, resident = optax.adam(1e-2), jax.tree.map(jnp.asarray, data.resident)
    requests = jax.tree.map(lambda *rows: jnp.stack(rows), *(data.train(number) for number in range(steps)))
    held_out = jax.tree.map(jnp.asarray, data.fetch(data.resident, next(data.evaluation(1, 32))))
    init = jax.jit(system.init)

    @jax.jit
    def train(variables, keys):
        state = State(variables)

        def step(carry, inputs):
            (params, moments), (request, key) = carry, inputs
            batch = data.fetch(resident, request)
            gradients = jax.grad(lambda params: system.loss(params, state, batch, key).loss)(params)
            updates, moments = optimizer.update(gradients, moments)
            return (optax.apply_updates(params, updates), moments), None

        start = (state.params, optimizer.init(state.params))
        return jax.lax.scan(step, start, (requests, keys))[0][0]

    @jax.jit
    def evaluate(variables, params):
        return system.eval_sums(State({**variables, "params": params}), held_out)

    for seed in SEEDS:
        variables = init(jax.random.key(seed), data.fetch(data.resident, data.train(0)))
        params = train(variables, jax.random.split(jax.random.key(seed + 100), steps))
        sums = jax.device_get(evaluate(variables, params))
        yield system.eval_metrics(sums)["jepa/deviation"]


def test_codes_collapse_without_teacher_stopped_gradient_and_rate():
    assert max(deviations_after({"jepa": 1.0})) < 0.1


def test_the_coding_rate_keeps_codes_from_collapse():
    assert min(deviations_after({"jepa": 1.0, "coding_rate": 0.3})) > 0.7


def test_the_slow_copy_of_given_parameters_is_theirs_and_not_that_of_the_drawn_ones(batch):
    system = tiny_polar.make_system(config_of(WEIGHTS))
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    given = jax.tree.map(lambda leaf: leaf + 1, variables["params"])
    measured = jax.jit(system.measure)({**variables, "params": given}, batch)
    jax.tree.map(np.testing.assert_array_equal, measured["target"], followed(given))
