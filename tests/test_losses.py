"""Losses against the recorded reference, values and gradients, and their behaviour where nothing is scored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import losses
from polarjax.core import Batch

MASKS = ("mask2d", "mask1d", "nomask")


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("polar/losses")


def inputs(recorded, mask_name, dtype):
    shape = recorded["in.z"].shape
    masks = {
        "mask2d": recorded["in.mask2d"],
        "mask1d": np.broadcast_to(recorded["in.mask1d"][:, None], shape),
        "nomask": np.ones(shape),
    }
    arrays = (recorded["in.z"], recorded["in.y"], masks[mask_name], recorded["in.pi"])
    return tuple(jnp.asarray(array, dtype) for array in arrays)


@pytest.mark.parametrize("mask_name", MASKS)
def test_poisson_nll_equals_the_reference_in_float32(recorded, mask_name):
    log_rate, count, mask, _ = inputs(recorded, mask_name, jnp.float32)
    value, gradient = jax.value_and_grad(losses.poisson_nll)(log_rate, count, mask)
    np.testing.assert_allclose(value, recorded[f"poisson_log.{mask_name}.loss"], rtol=2e-6)
    np.testing.assert_allclose(gradient, recorded[f"poisson_log.{mask_name}.drhat"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mask_name", MASKS)
def test_poisson_nll_equals_the_reference_in_float64(recorded, mask_name):
    with jax.enable_x64(True):
        log_rate, count, mask, _ = inputs(recorded, mask_name, jnp.float64)
        value, gradient = jax.value_and_grad(losses.poisson_nll)(log_rate, count, mask)
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, recorded[f"poisson_log.{mask_name}.loss.f64"], rtol=1e-12)
        np.testing.assert_allclose(gradient, recorded[f"poisson_log.{mask_name}.drhat.f64"], rtol=1e-10)


@pytest.mark.parametrize("mask_name", MASKS)
def test_the_reference_loss_of_rates_follows_by_the_chain_rule(recorded, mask_name):
    log_rate, count, mask, _ = inputs(recorded, mask_name, jnp.float32)
    value, gradient = jax.value_and_grad(losses.poisson_nll)(log_rate, count, mask)
    np.testing.assert_allclose(value, recorded[f"poisson_lin.{mask_name}.loss"], rtol=2e-6)
    expected = recorded[f"poisson_lin.{mask_name}.drhat"] * np.exp(recorded["in.z"])
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mask_name", MASKS)
def test_zero_inflated_loss_equals_the_reference_in_float32(recorded, mask_name):
    log_rate, count, mask, silence = inputs(recorded, mask_name, jnp.float32)
    value, gradients = jax.value_and_grad(losses.zero_inflated_poisson_nll, argnums=(0, 3))(
        log_rate, count, mask, silence
    )
    for kind in ("zip_log", "zip_lin"):
        np.testing.assert_allclose(value, recorded[f"{kind}.{mask_name}.loss"], rtol=2e-6)
        np.testing.assert_allclose(gradients[1], recorded[f"{kind}.{mask_name}.dpi"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradients[0], recorded[f"zip_log.{mask_name}.drhat"], rtol=1e-5, atol=1e-7)
    expected = recorded[f"zip_lin.{mask_name}.drhat"] * np.exp(recorded["in.z"])
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mask_name", MASKS)
def test_zero_inflated_loss_equals_the_reference_in_float64(recorded, mask_name):
    with jax.enable_x64(True):
        log_rate, count, mask, silence = inputs(recorded, mask_name, jnp.float64)
        value, gradients = jax.value_and_grad(losses.zero_inflated_poisson_nll, argnums=(0, 3))(
            log_rate, count, mask, silence
        )
        np.testing.assert_allclose(value, recorded[f"zip_log.{mask_name}.loss.f64"], rtol=1e-12)
        for gradient, name in zip(gradients, ("drhat", "dpi"), strict=True):
            reference = recorded[f"zip_log.{mask_name}.{name}.f64"]
            np.testing.assert_allclose(gradient, reference, rtol=1e-7, atol=1e-12)


def test_without_silence_the_zero_inflated_loss_is_the_poisson_loss(recorded):
    log_rate, count, mask, _ = inputs(recorded, "mask2d", jnp.float32)
    ours = losses.zero_inflated_poisson_nll(log_rate, count, mask, jnp.zeros_like(log_rate))
    np.testing.assert_allclose(ours, recorded["zip_log_nopi.mask2d.loss"], rtol=1e-5)


def test_losses_equal_a_loop_over_bins(recorded):
    z, y, d, pi = (np.asarray(array, np.float64) for array in inputs(recorded, "mask2d", jnp.float32))
    poisson, inflated = 0.0, 0.0
    for index in np.ndindex(z.shape):
        silence = min(max(pi[index], 1e-8), 1 - 1e-8)
        poisson += d[index] * (np.exp(z[index]) - y[index] * z[index])
        probability = (1 - silence) * np.exp(-np.exp(z[index])) * np.exp(z[index]) ** y[index]
        inflated -= d[index] * np.log(probability + (silence if y[index] == 0 else 0.0))
    arguments = inputs(recorded, "mask2d", jnp.float32)
    np.testing.assert_allclose(losses.poisson_nll(*arguments[:3]), poisson / d.sum(), rtol=1e-6)
    np.testing.assert_allclose(losses.zero_inflated_poisson_nll(*arguments), inflated / d.sum(), rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.poisson_nll, losses.zero_inflated_poisson_nll])
def test_an_empty_mask_gives_zero_with_zero_gradient_even_for_non_finite_input(loss):
    bad = jnp.array([[jnp.nan, jnp.inf, -jnp.inf, 1e30]])
    extra = (bad,) if loss is losses.zero_inflated_poisson_nll else ()
    value, gradient = jax.value_and_grad(loss)(bad, bad, jnp.zeros((1, 4)), *extra)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


@pytest.mark.parametrize("loss", [losses.poisson_nll, losses.zero_inflated_poisson_nll])
def test_a_masked_bin_changes_nothing(loss):
    log_rate, count, mask = jnp.array([[-1.0, 0.3]]), jnp.array([[1.0, jnp.nan]]), jnp.array([[1.0, 0.0]])
    extra = (jnp.full((1, 2), 0.2),) if loss is losses.zero_inflated_poisson_nll else ()
    value, gradient = jax.value_and_grad(loss)(log_rate, count, mask, *extra)
    alone = loss(log_rate[:, :1], count[:, :1], mask[:, :1], *(array[:, :1] for array in extra))
    assert value == alone
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0


def test_log_rates_are_clipped_to_a_finite_loss():
    log_rate = jnp.array([[1e4, -1e4]])
    value, gradient = jax.value_and_grad(losses.poisson_nll)(log_rate, jnp.ones((1, 2)), jnp.ones((1, 2)))
    np.testing.assert_allclose(value, (np.exp(10.0) - 10 + np.exp(-20.0) + 20) / 2, rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((1, 2)))


def spikes_of(n_units, seed=0):
    """Log rates and a batch of two segments a session, whose padding is not valid."""
    random, sessions, widest = np.random.default_rng(seed), len(n_units), max(n_units)
    shape = (2 * sessions, 3, widest)
    valid = np.zeros(shape, np.float32)
    for session, units in enumerate(n_units):
        valid[session::sessions, :, :units] = 1 + session
    arrays = (random.normal(size=shape), random.poisson(1.0, shape), valid)
    log_rate, spikes, valid = (jnp.asarray(values, jnp.float32) for values in arrays)
    movie, gaze = jnp.zeros((len(spikes), 3, 1, 1, 1)), jnp.zeros((len(spikes), 3, 2))
    return log_rate, Batch(movie, gaze, spikes, valid)


def test_the_loss_is_the_mean_over_the_sessions_which_have_units():
    log_rate, batch = spikes_of((2, 0, 3))
    kept = np.asarray([0, 2, 3, 5])
    without = Batch(*(values[kept] for values in batch))
    mixed = losses.session_mean_nll(log_rate, batch, (2, 0, 3))
    assert mixed == losses.session_mean_nll(log_rate[kept], without, (2, 3))
    assert mixed == 1.5 * losses.session_mean_nll(log_rate, batch, (2, 1, 3))


def test_the_loss_of_sessions_without_any_unit_is_zero():
    log_rate, batch = spikes_of((0, 0))
    assert losses.session_mean_nll(log_rate, batch, (0, 0)) == 0
    assert losses.by_session(log_rate, 2).shape == (2, 3, 2, 0)
