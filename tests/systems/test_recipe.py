"""The recipe of training in the polar system: silence, weights that rise, widths that are held."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import losses
from polarjax.core import ConfigError
from polarjax.models import inference, silence
from polarjax.systems import polar
from tests.engine import tiny_polar

INFLATED = {"loss.weights.poisson": 0.0, "loss.weights.zero_inflated_poisson": 1.0}
MODELS = {"polar_v1": None, "linear_nonlinear": {"n_lags": 3}}
KEY = jax.random.key(0)


@dataclasses.dataclass
class State:
    """What a loss reads of the training state."""

    params: dict
    model_state: dict
    step: int = 0
    target_params: None = None


def config_of(model="polar_v1", *, zero_inflated=False, **overrides):
    config = tiny_polar.make_config(**overrides)
    with config.unlocked(), config.ignore_type():
        if MODELS[model]:
            config.model = {"name": model, "kwargs": MODELS[model]}
        config.model.kwargs.zero_inflated = zero_inflated
    return config


@pytest.fixture(scope="module")
def batch():
    data = tiny_polar.make_data()
    return jax.tree.map(jnp.asarray, data.fetch(data.resident, data.train(0)))


def start(config, batch):
    """Returns the system of a config and its first state, with a silence of its own for every unit."""
    system = tiny_polar.make_system(config)
    variables = dict(jax.jit(system.init)(KEY, batch))
    params = variables.pop("params")
    holder = params.get("readout", params)
    if silence.NAME in holder:
        shape = holder[silence.NAME].shape
        holder[silence.NAME] = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    return system, State(params, variables)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_that_of_silence_and_rate_and_what_is_predicted_is_the_mean(model, batch):
    system, state = start(config_of(model, zero_inflated=True, **INFLATED), batch)
    mean = np.asarray(jax.jit(system.predict)(state.params, state.model_state, batch), np.float64)
    logit = np.asarray(state.params.get("readout", state.params)[silence.NAME], np.float64)
    silent = np.tile(1 / (1 + np.exp(-logit)), (4, 1))[:, None]
    log_rate = mean - np.log1p(-silent)
    given = (log_rate, batch.spikes, batch.valid, np.broadcast_to(silent, mean.shape))
    sessions = [
        losses.zero_inflated_poisson_nll(*(jnp.asarray(x[s::2], jnp.float32) for x in given))
        for s in range(2)
    ]

    def loss(params):
        output = system.loss(params, dataclasses.replace(state, params=params), batch, KEY)
        return output.loss, output.scalars

    (value, scalars), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
    np.testing.assert_allclose(value, np.mean(sessions), rtol=1e-5)
    assert set(scalars) == {"loss_zero_inflated_poisson"}
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    learned = np.asarray(gradients.get("readout", gradients)[silence.NAME])
    assert learned[1, 2] == 0
    assert np.count_nonzero(learned) == 5


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_gives_the_mean_count_as_well(model, batch):
    config = config_of(model, zero_inflated=True, **INFLATED)
    system, state = start(config, batch)
    predicted = jax.jit(system.predict)(state.params, state.model_state, batch)
    info, variables = tiny_polar.make_data().info, {"params": state.params, **state.model_state}
    for index, units in enumerate(tiny_polar.UNITS):
        single = inference.select_session(variables, info, index, model)
        _, initial, advance = inference.make_predictors(config, info, index)
        _, streamed = advance(single, initial(single, 4), batch.stimulus[index::2], batch.gaze[index::2])
        np.testing.assert_allclose(
            streamed[:, -tiny_polar.PREDICTED :], predicted[index::2, :, :units], rtol=1e-4, atol=1e-5
        )


def test_a_session_moves_the_loss_by_its_weight(batch):
    system, state = start(config_of(), batch)
    log_rate = jax.jit(system.predict)(state.params, state.model_state, batch)
    alone = [losses.poisson_nll(*(x[s::2] for x in (log_rate, batch.spikes, batch.valid))) for s in range(2)]
    weights = jnp.tile(jnp.array([0.5, 1.5]), 4)[:, None, None]
    weighed = jax.jit(lambda given: system.loss(state.params, state, given, KEY).loss)(
        batch._replace(valid=batch.valid * weights)
    )
    np.testing.assert_allclose(weighed, (0.5 * alone[0] + 1.5 * alone[1]) / 2, rtol=1e-5)


def test_silence_is_of_the_group_of_the_readout():
    for model in MODELS:
        assert polar.param_group(model)(("readout", silence.NAME)) == "readout"


def test_regularisers_are_added_with_the_weight_of_the_step(batch):
    weights = {"loss.weights.feature_l1": 0.5, "loss.weights.feature_group_lasso": 0.25}
    config = config_of(
        **weights, **{"loss.schedules.feature_l1": (0.0, 0.5)}
    )  # 4 steps: whole from step 2 on
    system, state = start(config, batch)
    loss = jax.jit(lambda step: system.loss(state.params, dataclasses.replace(state, step=step), batch, KEY))
    for step, share in ((0, 0.0), (1, 0.5), (2, 1.0), (3, 1.0)):
        output = loss(step)
        terms = {name.removeprefix("loss_"): value for name, value in output.scalars.items()}
        expected = terms["poisson"] + 0.5 * share * terms["feature_l1"] + 0.25 * terms["feature_group_lasso"]
        np.testing.assert_allclose(output.loss, expected, rtol=1e-6)
        assert terms["feature_l1"] > 0


def test_widths_are_held_by_the_share_of_the_run(batch):
    limits = (0.01, 0.2, 0.1, 0.5)
    system, state = start(config_of(**{"optim.bounds": {"width_deg": limits}}), batch)
    for progress, high in ((0.0, 0.2), (0.25, 0.15), (0.9, 0.1)):
        widths = np.exp(np.asarray(system.project(state.params, progress)["readout"]["log_width"]))
        np.testing.assert_allclose(widths, high, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "zero_inflated", "overrides", "message"),
    [
        (
            "polar_v1",
            True,
            {},
            r"weights has poisson 1\.0, zero_inflated_poisson 0\.0, but config\.model\.kwargs\.zero_inflated is True",
        ),
        ("linear_nonlinear", False, INFLATED, r"zero_inflated_poisson 1\.0, but .*zero_inflated is False"),
        ("polar_v1", False, {"loss.weights.zero_inflated_poisson": 1.0}, "exactly one of them must be above 0"),
        ("linear_nonlinear", False, {"loss.weights.feature_l1": 1.0}, "LinearNonlinear has no readout of features"),
        ("linear_nonlinear", False, {"optim.bounds": {"width_deg": (0.1, 1.0)}}, "no readout with widths in degrees"),
    ],
)  # fmt: skip
def test_a_loss_and_bounds_that_do_not_fit_the_model_are_refused(model, zero_inflated, overrides, message):
    with pytest.raises(ConfigError, match=message):
        tiny_polar.make_system(config_of(model, zero_inflated=zero_inflated, **overrides))


def test_the_floor_is_a_plain_poisson_model_whatever_the_recipe(batch):
    recipe = {
        "train.floor_steps": 4,
        "loss.weights.feature_l1": 1e-7,
        "optim.bounds": {"width_deg": (0.1, 1.0)},
    }
    config = config_of(zero_inflated=True, **INFLATED, **recipe, **{"train.patience": 3})
    with config.unlocked(), config.ignore_type():
        config.data.burn_in = 2
    floor = polar.floor(config)
    assert floor.loss.to_dict() == polar.poisson_loss()
    assert floor.train.patience == 0
    system, _ = start(floor, batch)
    params = jax.eval_shape(system.init, KEY, batch)["params"]
    assert set(params) == {"spatial", "temporal", "bias"}
