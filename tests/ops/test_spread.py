"""Penalties against collapse: second formulas in NumPy, invariants, and what they do at collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import spread
from polarjax.ops.coding_rate import coding_rate

KEY = jax.random.key(0)


def codes(n=48, d=6, scale=1.0):
    return jnp.asarray(np.random.default_rng(0).normal(0.2, scale, (n, d)), jnp.float32)


def test_the_rate_penalty_is_minus_the_rate():
    assert spread.rate_penalty(codes()) == -coding_rate(codes())


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_variance_and_covariance_equal_numpy(scale):
    z = codes(scale=scale)
    covariance = np.cov(np.asarray(z, np.float64).T)
    variances = np.diag(covariance)
    hinge = np.maximum(0, 1 - np.sqrt(variances + 1e-4)).mean()
    shared = (covariance**2).sum() - (variances**2).sum()
    expected = 25 * hinge + shared / z.shape[1]
    np.testing.assert_allclose(spread.variance_covariance(z), expected, rtol=2e-5)


def test_columns_of_unit_deviation_that_share_nothing_have_no_penalty():
    rows = jnp.asarray([[1, 1], [1, -1], [-1, 1], [-1, -1]], jnp.float32)
    np.testing.assert_allclose(spread.variance_covariance(rows), 0, atol=1e-6)


def distance_by_pairs(x):
    """Returns the statistic with the integral solved: sums of Gaussians of the samples and of their differences."""
    x = np.asarray(x, np.float64)
    pairs = np.exp(-((x[:, None] - x[None]) ** 2) / 2).mean()
    singles = np.exp(-(x**2) / 4).mean() / np.sqrt(2)
    return len(x) * np.sqrt(2 * np.pi) * (pairs - 2 * singles + 1 / np.sqrt(3))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (1.5, 0.4), (0.0, 0.0), (-0.5, 2.0)])
def test_the_distance_from_normal_equals_the_integral_written_out(mean, scale):
    x = np.random.default_rng(1).normal(mean, scale, (40, 3))
    expected = [distance_by_pairs(column) for column in x.T]
    found = spread.gaussian_distance(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_normal_codes_have_the_same_small_distance_whatever_their_number():
    null = np.sqrt(2 * np.pi) * (1 - 3**-0.5)
    for n in (128, 1024):
        x = jnp.asarray(np.random.default_rng(2).normal(size=(n, 400)), jnp.float32)
        np.testing.assert_allclose(spread.gaussian_distance(x).mean(), null, rtol=0.15)


def test_slices_of_normal_codes_are_nearer_to_normal_than_slices_of_others():
    near, narrow = (spread.sliced_gaussian(codes(256, scale=s) - 0.2, KEY) for s in (1.0, 0.2))
    collapsed = spread.sliced_gaussian(jnp.zeros((256, 6)), KEY)
    assert near < 2 < narrow < collapsed
    np.testing.assert_allclose(collapsed, 256 * np.sqrt(2 * np.pi) * (1 - 2**0.5 + 3**-0.5), rtol=1e-3)


def test_slices_do_not_know_how_the_codes_are_turned_but_for_the_draw():
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0], jnp.float32)
    z = codes(256, scale=2.0)
    options = {"n_slices": 4096}
    both = [spread.sliced_gaussian(x, KEY, **options) for x in (z, z @ turn)]
    np.testing.assert_allclose(*both, rtol=0.05)


def test_the_same_key_draws_the_same_slices():
    first, again, other = (spread.sliced_gaussian(codes(), jax.random.key(k)) for k in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("name", spread.PENALTIES)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_every_penalty_is_finite_with_its_gradient_at_collapse_and_falls_when_codes_spread(name, value):
    penalty = jax.jit(jax.value_and_grad(spread.PENALTIES[name]))
    collapsed, gradient = penalty(jnp.full((48, 6), value), KEY)
    assert np.isfinite(collapsed)
    assert np.isfinite(gradient).all()
    assert penalty(codes() - 0.2, KEY)[0] < collapsed


@pytest.mark.parametrize("name", spread.PENALTIES)
def test_a_step_down_the_gradient_spreads_codes_that_are_close_together(name):
    z = 1 + 0.1 * codes()
    gradient = jax.jit(jax.grad(spread.PENALTIES[name]))(z, KEY)
    moved = z - 0.05 * gradient / jnp.abs(gradient).max()
    assert coding_rate(moved, normalized=False) > coding_rate(z, normalized=False)


@pytest.mark.parametrize("n", [48, 4])
@pytest.mark.parametrize("name", spread.PENALTIES)
def test_means_over_parts_of_the_rows_give_the_penalty_of_them_all_and_its_gradient(name, n):
    def whole(z):
        return spread.PENALTIES[name](z, KEY)

    def pooled(z):
        parts = [spread.POOLED[name].means(part, KEY) for part in jnp.split(z, 2)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)
        return spread.POOLED[name].penalty(mean, n)

    z = codes(n, scale=0.7)
    (value, gradient), (expected, slope) = (jax.jit(jax.value_and_grad(f))(z) for f in (pooled, whole))
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5 * np.abs(slope).max())
    assert np.isfinite(jax.jit(jax.grad(pooled))(jnp.full((n, 6), 3.0))).all()
