"""Time constants: their starts, bounds in natural units, and the distance from the start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models import constants
from polarjax.models.polar_v1 import PolarV1

MODEL = PolarV1(
    (1,), (13, 13, 1), 1 / 120, 10.0, fixation_rate=5.0, saccade_rate=20.0, alpha_fast=0.8, alpha_slow=0.9
)
STARTS = {"lambda_fix": 5.0, "lambda_sac": 20.0, "alpha_fast": 0.8, "alpha_slow": 0.9}


def start():
    return {"rates": constants.initial_rates(MODEL), "alphas": constants.initial_alphas(MODEL)}


def test_constants_begin_where_the_model_says():
    for name, value in constants.time_constants(MODEL, start()).items():
        np.testing.assert_allclose(value, STARTS[name], rtol=1e-6)


def test_averages_that_are_no_summary_have_no_constant():
    model = dataclasses.replace(MODEL, summaries=("last", "slow"), dynamics="none")
    assert set(constants.initial_alphas(model)) == {"slow_logit"}
    assert constants.names_of(model) == ("alpha_slow",)
    assert constants.names_of(object()) == ()


@pytest.mark.parametrize("name", constants.PLACES)
@pytest.mark.parametrize("share", [0.7, 0.9, 1.01, 1.05])
def test_bounds_are_in_natural_units_and_leave_what_is_inside(name, share):
    low, high = 0.95 * STARTS[name], 1.03 * STARTS[name]
    (group, leaf), _ = constants.PLACES[name]
    params = start()
    # The raw parameter that gives share times the start, found without the formula.
    raw = np.linspace(-6, 6, 200_001)
    values = constants.time_constants(MODEL, {**params, group: {**params[group], leaf: jnp.asarray(raw)}})[
        name
    ]
    params[group][leaf] = jnp.asarray(raw[np.argmin(np.abs(values - share * STARTS[name]))])
    before = constants.time_constants(MODEL, params)
    after = constants.time_constants(MODEL, constants.clip_constants(MODEL, params, {name: (low, high)}))
    np.testing.assert_allclose(after[name], np.clip(before[name], low, high), rtol=1e-5)
    assert all(after[other] == before[other] for other in STARTS if other != name)


def test_the_distance_from_the_start_is_that_of_the_logarithms_of_the_memories():
    params = start()
    np.testing.assert_allclose(constants.distance_from_start(MODEL, params), 0, atol=1e-12)
    params["rates"]["log_fixation"] = jnp.asarray(0.7)
    params["alphas"]["slow_logit"] = jnp.asarray(1.1)
    memory_fix = np.log(2) / np.log1p(np.exp(0.7))
    memory_slow = np.log(0.9) / np.log(1 / (1 + np.exp(-1.1)))
    expected = np.log(memory_fix) ** 2 + np.log(memory_slow) ** 2
    np.testing.assert_allclose(constants.distance_from_start(MODEL, params), expected, rtol=1e-5)
    gradient = jax.grad(lambda params: constants.distance_from_start(MODEL, params))(params)
    assert float(gradient["rates"]["log_fixation"]) != 0
    np.testing.assert_allclose(gradient["rates"]["log_saccade"], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lambda_fix": (5.0, 1.0)}, r"bounds.lambda_fix is \(5.0, 1.0\); allowed are None and"),
        ({"alpha_fast": (0.5, 1.5)}, "with 0 < low < high <= 1"),
        ({"alpha_slow": 0.5}, "bounds.alpha_slow is 0.5"),
        ({"lambda_fix": ("a", 2.0)}, "bounds.lambda_fix is .*; allowed are None and"),
        ({"lambda_fix": (True, 9.0)}, "bounds.lambda_fix is .*; allowed are None and"),
        ({"lambda_fix": (6.0, 9.0)}, "its start, config.model.kwargs.fixation_rate, is 5.0"),
    ],
)
def test_bounds_that_cannot_be_held_are_refused(bounds, message):
    with pytest.raises(ConfigError, match=message):
        constants.read_bounds(MODEL, bounds)


def test_a_bound_of_a_constant_that_the_model_lacks_is_refused():
    model = dataclasses.replace(MODEL, dynamics="none")
    assert constants.read_bounds(model, {"lambda_fix": None}) == {}
    with pytest.raises(ConfigError, match="the model has no lambda_fix; set it to None"):
        constants.read_bounds(model, {"lambda_fix": (1.0, 2.0)})
