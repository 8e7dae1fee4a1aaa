"""The coding rate against the reference, against eigenvalues in NumPy, and at collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import coding_rate as rates

CASES = (
    "gauss_B64_d16",
    "gauss_B8_d16_rankdef",
    "lowrank2_B64_d16",
    "offset_B32_d8",
    "collapsed_const_B32_d8",
    "tiny_1e-4_B32_d8",
    "large_1e2_B32_d8",
    "unit_rows_B48_d12",
)
FORMS = {
    "centered": lambda z, alpha: rates.coding_rate(
        z, alpha=alpha, normalized=False, ridge=rates.REFERENCE_RIDGE
    ),
    "seed_uncentered": lambda z, alpha: rates.coding_rate(z, alpha=alpha, normalized=False, centred=False),
    "stable": lambda z, alpha: rates.floored_rate(z, alpha=alpha),
}
evaluate = {
    name: jax.jit(jax.value_and_grad(lambda z, alpha, form=form: -form(z, alpha)), static_argnums=1)
    for name, form in FORMS.items()
}

rate_and_gradient = jax.jit(jax.value_and_grad(rates.coding_rate))


def codes(n, d, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0.3, 2.0, (n, d)), jnp.float32)


def rate_in_numpy(z, alpha):
    z = np.asarray(z, np.float64)
    z = np.sqrt(z.shape[1]) * z / np.linalg.norm(z, axis=1, keepdims=True)
    return np.log1p(alpha * np.linalg.eigvalsh(np.cov(z.T, bias=True))).sum()


def condition(z, alpha):
    z = z.astype(np.float64)
    return np.linalg.cond(np.eye(z.shape[1]) + alpha * z.T @ z / len(z))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_rates_and_gradients_equal_the_reference_in_both_precisions(golden, precision, case, form):
    arrays = golden("seqjepa/coding_rate")
    z = precision.array(arrays[f"{case}.Z"])
    for alpha in (1.0, 100.0):
        name = f"{case}.{form}.a{alpha:g}"
        loss, gradient = evaluate[form](z, alpha)
        precision.assert_value(loss, arrays[f"{name}.loss"], name)
        expected = arrays.get(f"{name}.grad", np.zeros(z.shape))
        # Where the codes have collapsed the gradient is made of rounding errors of the codes themselves.
        floor = 1e-9 if precision.dtype is np.float64 else 1e-6 * np.abs(z).max()
        # The inverse in the gradient multiplies rounding by the condition number: 1e4 with an offset left in.
        rounding = np.finfo(precision.dtype).eps * condition(arrays[f"{case}.Z"], alpha)
        floor = max(floor, max(precision.gradient_floor, rounding) * np.abs(expected).max())
        np.testing.assert_allclose(gradient, expected, rtol=precision.gradient, atol=floor, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_half_the_rate_is_that_of_mcr2(golden, precision, case):
    arrays = golden("seqjepa/coding_rate")
    z = precision.array(arrays[f"{case}.Z"])
    rate = rates.coding_rate(z, alpha=z.shape[1] / 0.5, normalized=False, centred=False) / 2
    precision.assert_value(rate, arrays[f"{case}.mcr2.eps2_0.5.R"])


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (9, 9)])
@pytest.mark.parametrize("alpha", [0.5, 8.0])
def test_the_rate_of_normalised_rows_equals_that_of_the_eigenvalues(n, d, alpha):
    z = codes(n, d)
    np.testing.assert_allclose(rates.coding_rate(z, alpha=alpha), rate_in_numpy(z, alpha), rtol=2e-5)


def test_few_rows_have_the_rate_of_the_larger_matrix():
    with jax.enable_x64(True):
        z = np.random.default_rng(1).normal(size=(5, 12))
        padded = np.concatenate([z * np.sqrt(13 / 5), np.zeros((8, 12))])
        options = {"normalized": False, "centred": False, "alpha": 3.0, "ridge": 1e-4}
        small, large = (rates.coding_rate(jnp.asarray(x), **options) for x in (z, padded))
        np.testing.assert_allclose(small, large, rtol=1e-12)


def test_the_rate_knows_neither_scale_nor_rotation_nor_order():
    z = codes(32, 8)
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0], jnp.float32)
    rate = rates.coding_rate(z)
    for same in (100 * z, z @ turn, z[::-1]):
        np.testing.assert_allclose(rates.coding_rate(same), rate, rtol=2e-5)


@pytest.mark.parametrize("n_pairs", [2, 4])
def test_the_largest_rate_is_that_of_rows_spread_evenly(n_pairs):
    spread = jnp.concatenate([jnp.eye(n_pairs), -jnp.eye(n_pairs)])
    expected = rates.largest_rate(2 * n_pairs, n_pairs, alpha=2.0)
    np.testing.assert_allclose(rates.coding_rate(spread, alpha=2.0), expected, rtol=1e-5)
    np.testing.assert_allclose(rates.rate_share(spread, alpha=2.0), 1, rtol=1e-5)


def test_few_rows_that_form_a_simplex_reach_the_largest_rate():
    simplex = jnp.eye(4) - 0.25
    np.testing.assert_allclose(rates.rate_share(simplex[:, :4]), 1, rtol=1e-5)
    assert rates.largest_rate(4, 256) == pytest.approx(3 * np.log1p(256 / 3))


def test_one_row_has_no_rate():
    assert rates.largest_rate(1, 8) == 0
    assert rates.rate_share(codes(1, 8)) == 0


def test_the_rate_lies_between_zero_and_the_largest():
    for n, d in ((3, 16), (100, 4)):
        assert 0 < rates.rate_share(codes(n, d)) < 1


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-20, 1e4])
@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
def test_collapsed_codes_have_no_rate_and_a_finite_gradient(value, shape):
    rate, gradient = rate_and_gradient(jnp.full(shape, value))
    np.testing.assert_allclose(rate, 0, atol=1e-4)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient * max(value, 1), 0, atol=1e-4)


def test_a_row_of_zeros_among_others_has_a_bounded_gradient():
    _, gradient = rate_and_gradient(codes(16, 4).at[3].set(0.0))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 1e4


def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        z = np.random.default_rng(3).normal(size=(7, 4))
        _, gradient = rate_and_gradient(jnp.asarray(z))
        step = np.zeros_like(z)
        step[2, 1] = 1e-6
        slope = (rate_in_numpy(z + step, 1.0) - rate_in_numpy(z - step, 1.0)) / 2e-6
        np.testing.assert_allclose(gradient[2, 1], slope, rtol=1e-6)


def test_a_mean_of_rates_of_micro_batches_is_at_most_that_of_all_rows():
    z = codes(64, 8)
    parts = np.mean([rates.coding_rate(part) for part in jnp.split(z, 4)])
    assert parts < rates.coding_rate(z)


def test_half_precision_is_computed_in_float32():
    z = codes(32, 8).astype(jnp.bfloat16)
    rate = rates.coding_rate(z)
    assert rate.dtype == jnp.float32
    np.testing.assert_allclose(rate, rates.coding_rate(z.astype(jnp.float32)))
