"""Correlation against SciPy, in its two forms: borders, strides, groups, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from polarjax.ops.convolution import (
    correlate,
    correlate_band,
    correlate_by_convolution,
    correlate_by_product,
)

FORMS = {"convolution": correlate_by_convolution, "product": correlate_by_product}
CASES = [
    ((2, 7, 10, 3), 5, 1, 1),
    ((2, 9, 8, 3), 3, 2, 1),
    ((1, 8, 7, 2), 5, 3, 2),
    ((2, 4, 5, 2), 7, 1, 2),
    ((1, 17, 17, 1), 15, 1, 1),
]


def draw(shape, size, groups):
    """Returns images and kernels: 4 outputs, or one a channel where each channel is alone."""
    random = np.random.default_rng(size)
    n_outputs = 4 if groups == 1 else groups
    kernel = random.normal(size=(size, size, shape[-1] // groups, n_outputs))
    return jnp.asarray(random.normal(size=shape), jnp.float32), jnp.asarray(kernel, jnp.float32)


def by_scipy(x, kernel, stride, groups):
    """Correlates [B, H, W, C] with [k, k, i, O] through scipy.signal, zeros outside."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    maps = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for b, out, i in np.ndindex(x.shape[0], kernel.shape[-1], kernel.shape[2]):
        channel = i if groups == 1 else out
        maps[b, :, :, out] += scipy.signal.correlate2d(x[b, :, :, channel], kernel[:, :, i, out], "same")
    return maps[:, ::stride, ::stride]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("shape", "size", "stride", "groups"), CASES)
def test_correlation_equals_scipy(form, shape, size, stride, groups):
    x, kernel = draw(shape, size, groups)
    actual = jax.jit(functools.partial(form, stride=stride, groups=groups))(x, kernel)
    assert actual.shape[1:3] == (-(-shape[1] // stride), -(-shape[2] // stride))
    np.testing.assert_allclose(actual, by_scipy(x, kernel, stride, groups), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "stride", "channels", "more"), [(5, 1, 1, 3), (5, 2, 3, 2), (3, 3, 2, 0), (4, 3, 1, 5)]
)
def test_a_band_holds_the_same_numbers_whatever_fills_it_up(size, stride, channels, more):
    x, kernel = draw((1, size + 3 * stride, size + 5 * stride, channels), size, 1)
    whole = correlate(x, kernel, stride=stride, padded=False)[0]
    pixels, rows = whole.shape[0] * whole.shape[1], kernel.reshape(-1, kernel.shape[-1]).T
    band = jax.jit(functools.partial(correlate_band, size, stride, pixels + more))(rows, x[0])
    assert band.shape == (kernel.shape[-1], pixels + more)
    np.testing.assert_allclose(band[:, :pixels], whole.reshape(pixels, -1).T, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("shape", "size", "stride", "groups"), CASES[1:3])
def test_batch_axes_may_stand_between_pixels_and_channels(form, shape, size, stride, groups):
    x, kernel = draw((12, *shape[1:]), size, groups)
    between = np.moveaxis(np.asarray(x).reshape(2, 3, 2, *shape[1:]), (1, 2), (3, 4))
    actual = jax.jit(functools.partial(form, stride=stride, groups=groups))(between, kernel)
    expected = by_scipy(x, kernel, stride, groups)
    flat = np.moveaxis(np.asarray(actual), (3, 4), (1, 2)).reshape(expected.shape)
    np.testing.assert_allclose(flat, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("shape", "size", "stride", "groups"), CASES[1:3])
def test_both_forms_have_the_same_gradients(shape, size, stride, groups):
    @jax.jit
    def gradients(x, kernel):
        def loss(form, x, kernel):
            return (form(x, kernel, stride=stride, groups=groups) ** 2).sum()

        forms = (correlate_by_convolution, correlate_by_product)
        return [jax.grad(functools.partial(loss, form), argnums=(0, 1))(x, kernel) for form in forms]

    for a, b in zip(*gradients(*draw(shape, size, groups)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(abs(a).max()))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_form_of_the_backend_is_chosen(form):
    x, kernel = draw((1, 6, 6, 2), 3, 1)
    chosen = jax.jit(functools.partial(correlate, stride=2))(x, kernel)
    expected = jax.jit(functools.partial(form, stride=2, groups=1))(x, kernel)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_impulse_returns_the_kernel_turned_around_its_centre(form):
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    impulse = np.zeros((1, 5, 5, 1), np.float32)
    impulse[0, 2, 2, 0] = 1
    response = jax.jit(functools.partial(form, stride=1, groups=1))(impulse, kernel)
    np.testing.assert_array_equal(response[0, 1:4, 1:4, 0], kernel[::-1, ::-1, 0, 0])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2), (5, 3)])
def test_without_padding_only_whole_neighbourhoods_count(form, size, stride):
    x, kernel = draw((2, 9, 8, 3), size, 1)
    expected = np.zeros((2, 9 - size + 1, 8 - size + 1, 4))
    for b, out, i in np.ndindex(2, 4, 3):
        image, weights = np.asarray(x[b, :, :, i]), np.asarray(kernel[:, :, i, out])
        expected[b, :, :, out] += scipy.signal.correlate2d(image, weights, "valid")
    moved = jnp.moveaxis(x, 0, 2)[None]
    actual = form(moved, kernel, stride=stride, groups=1, padded=False)[0]
    np.testing.assert_allclose(
        np.moveaxis(actual, 2, 0), expected[:, ::stride, ::stride], rtol=2e-5, atol=2e-5
    )
