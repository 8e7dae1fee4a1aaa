"""The linear-nonlinear model: its formula, causality, memory and sessions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.linear_nonlinear import LinearNonlinear
from polarjax.models.readout import LOG_RATE_FLOOR
from polarjax.ops.laplacian_pyramid import downsample
from tests.models.jitted import apply


@pytest.fixture(scope="module")
def model():
    module = LinearNonlinear(
        n_units=(2, 3), frame_shape=(9, 6, 1), n_lags=3, initial_rate=((0.5,) * 3, (2.0,) * 3)
    )
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 1, 9, 6, 1)))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.5, leaf.shape), leaf.dtype), shapes)
    return module, variables, jnp.asarray(random.normal(size=(4, 7, 9, 6, 1)), jnp.float32)


def advance(model, stimulus, memory=None):
    module, variables, _ = model
    memory, log_rate, _ = apply(module, variables, stimulus, None, memory, method="advance")
    return memory, np.asarray(log_rate)


def test_the_rate_is_the_softplus_of_the_filtered_frames(model):
    module, variables, stimulus = model
    params = jax.tree.map(np.asarray, variables["params"])
    small = np.asarray(downsample(stimulus, normalized=True)).reshape(4, 7, -1)
    expected = np.zeros((4, 7, 3))
    for example in range(4):
        session = example % 2
        for frame in range(7):
            for lag in range(min(frame, 2) + 1):
                space = params["spatial"]["kernel"][session] @ small[example, frame - lag]
                # temporal filters hold the oldest frame first
                expected[example, frame] += (space * params["temporal"]["kernel"][session, ..., 2 - lag]).sum(
                    -1
                )
        expected[example] += params["bias"][session]
    rates = np.log1p(np.exp(expected)) * np.array([0.5, 2.0, 0.5, 2.0])[:, None, None]
    np.testing.assert_allclose(
        advance(model, stimulus)[1], np.log(rates + LOG_RATE_FLOOR), rtol=1e-4, atol=1e-5
    )


def test_with_the_exponential_link_the_rate_is_exp_of_the_drive_and_starts_at_the_mean_rate(model):
    module, variables, stimulus = model
    _, soft = advance(model, stimulus)
    mean = np.log(np.array([0.5, 2.0, 0.5, 2.0]))[:, None, None]
    drive = np.log(np.expm1(np.exp(soft - mean)))
    exponential = module.clone(link="exp")
    np.testing.assert_allclose(
        advance((exponential, variables, None), stimulus)[1], drive, rtol=1e-3, atol=1e-3
    )
    start = exponential.init(jax.random.key(0), stimulus[:, :1])["params"]["bias"]
    np.testing.assert_allclose(start, np.log([[0.5] * 3, [2.0] * 3]), rtol=1e-6)


def test_an_unknown_link_is_refused():
    module = LinearNonlinear(n_units=(1,), frame_shape=(4, 4, 1), link="relu")
    with pytest.raises(ConfigError, match="link is 'relu'; allowed are exp, softplus"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 4, 4, 1)))


def test_a_movie_in_parts_with_the_memory_handed_on_is_the_movie_in_one(model):
    module, _, stimulus = model
    memory, whole = advance(model, stimulus)
    start = module.initial_memory(4, (9, 6))
    part, first = advance(model, stimulus[:, :1], start)
    part, second = advance(model, stimulus[:, 1:], part)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part, memory, rtol=1e-5, atol=1e-6)


def test_the_last_rate_of_a_segment_is_that_of_the_window_of_its_lags(model):
    module, variables, stimulus = model
    log_rate, _ = module.apply(variables, stimulus[:, -3:])
    np.testing.assert_allclose(log_rate, advance(model, stimulus)[1][:, -1], rtol=1e-5, atol=1e-5)


def test_a_later_frame_changes_no_rate(model):
    _, before = advance(model, model[2])
    _, after = advance(model, model[2].at[:, 4].add(1.0))
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert (np.abs(after[:, 4:] - before[:, 4:]).max((0, 2)) > 0).all()


def test_it_knows_no_gaze_and_no_time_constants(model):
    module, variables, _ = model
    assert not module.uses_gaze
    assert module.time_constants(variables["params"]) == {}
    assert set(variables["params"]) == {"spatial", "temporal", "bias"}
