"""Silence of units: where the parameter lies, and what it makes of rates."""

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.models import silence
from polarjax.models.linear_nonlinear import LinearNonlinear

LOGIT = np.array([[-3.0, 0.0, 2.0], [40.0, -40.0, 1.0]], np.float32)


def test_the_mean_is_the_rate_of_the_bins_that_are_not_silent():
    log_rate = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    share = 1 / (1 + np.exp(-LOGIT[[0, 1, 0, 1]].astype(np.float64)))
    expected = log_rate - np.logaddexp(0, LOGIT[[0, 1, 0, 1], None].astype(np.float64))
    for params in ({"readout": {"silence_logit": LOGIT}}, {"silence_logit": LOGIT}):
        found = silence.log_mean(params, jnp.asarray(log_rate))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        real = np.isfinite(expected) & (share[:, None] < 0.99)
        mean = (1 - share[:, None]) * np.exp(log_rate)
        np.testing.assert_allclose(np.exp(found)[real], mean[real], rtol=1e-5)
        np.testing.assert_allclose(silence.silence(params, 4)[:, 0], share, rtol=1e-6)


def test_certain_silence_has_a_finite_mean_and_a_finite_gradient():
    def total(logit):
        return silence.log_mean({"silence_logit": logit}, jnp.zeros((2, 1, 3))).sum()

    value, gradient = jax.value_and_grad(total)(LOGIT)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_every_model_has_the_parameter_where_it_is_asked_for_and_only_there(make_model):
    for inflated in (False, True):
        _, variables = make_model(zero_inflated=inflated)
        module = LinearNonlinear(n_units=(2, 3), frame_shape=(9, 6, 1), zero_inflated=inflated)
        floor = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 1, 9, 6, 1)))
        assert (silence.NAME in variables["params"]["readout"]) is inflated
        assert (silence.NAME in floor["params"]) is inflated
    assert floor["params"][silence.NAME].shape == (2, 3)
