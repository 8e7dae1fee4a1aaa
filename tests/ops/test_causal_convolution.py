"""Convolutions over time: the reference's numbers, loops in NumPy, strided against dilated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.causal_convolution import (
    convolve_frames,
    filter_pixels,
    hold_first,
    stack_taps,
    temporal_filters,
)

RANDOM = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def test_values_and_gradients_of_the_temporal_filters_equal_the_reference(golden, precision):
    arrays = golden("polar/baseline_parts")
    x = precision.array(np.transpose(arrays["tconv.in0"], (3, 4, 0, 2, 1)))
    kernel = precision.array(arrays["tconv.p.temporal_conv.conv.weight"][:, 0].T)
    out, pull = jax.vjp(filter_pixels, x, kernel)
    precision.assert_value(out, np.transpose(arrays["tconv.out" + precision.suffix], (3, 4, 0, 2, 1)))
    of_x, of_kernel = pull(precision.array(np.transpose(arrays["tconv.w"], (3, 4, 0, 2, 1))))
    precision.assert_gradient(of_x, np.transpose(arrays["tconv.din0" + precision.suffix], (3, 4, 0, 2, 1)))
    expected = arrays["tconv.grad.temporal_conv.conv.weight" + precision.suffix]
    precision.assert_gradient(of_kernel, expected[:, 0].T)


@pytest.mark.parametrize(
    ("time", "space", "padding"), [((1, 1), (1, 1), None), ((2, 1), (1, 2), None), ((1, 2), (2, 1), 3)]
)
def test_a_convolution_equals_its_loops(time, space, padding):
    x, kernel = draw(6, 5, 2, 7, 2), draw(3, 3, 3, 2, 4)
    margin = space[0] if padding is None else padding
    padded = np.pad(np.asarray(x), [(margin, margin)] * 2 + [(0, 0)] * 3, mode="edge")
    height, width = ((side - 2 * space[0] - 1) // space[1] + 1 for side in padded.shape[:2])
    expected = np.zeros((height, width, 2, -(-(7 - 2 * time[0]) // time[1]), 4))
    for i, j, _, t, _ in np.ndindex(expected.shape[:2] + (1,) + expected.shape[3:4] + (1,)):
        rows, columns = (space[1] * k + space[0] * np.arange(3) for k in (i, j))
        frames = time[1] * t + time[0] * np.arange(3)
        seen = padded[np.ix_(rows, columns, range(2), frames)]
        expected[i, j, :, t] = np.einsum("yxbtc,tyxco->bo", seen, kernel)
    actual = convolve_frames(x, kernel, time=time, space=space, padding=padding)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_strided_window_that_ends_at_a_frame_sees_what_a_dilated_segment_sees_there():
    x, first, second = draw(4, 4, 1, 9, 1), draw(3, 1, 1, 1, 2), draw(3, 1, 1, 2, 2)
    dilated = convolve_frames(hold_first(x, 2), first)
    dilated = convolve_frames(hold_first(dilated, 4), second, time=(2, 1))
    strided = convolve_frames(hold_first(x, 2), first, time=(1, 2))
    strided = convolve_frames(hold_first(strided, 2), second, time=(1, 2))
    np.testing.assert_allclose(strided, dilated[:, :, :, ::4], rtol=1e-5, atol=1e-6)


def test_taps_stand_side_by_side_the_oldest_first():
    x = jnp.arange(6.0).reshape(1, 1, 1, 6, 1)
    np.testing.assert_array_equal(stack_taps(x, 2, dilation=2, stride=3)[0, 0, 0], [[0, 2], [3, 5]])


def test_the_frontend_starts_as_a_gaussian_its_derivatives_and_noise_of_unit_norm():
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        filters, others = (
            np.asarray(temporal_filters(jnp.asarray(random.normal(size=(16, 4))))) for _ in "ab"
        )
    np.testing.assert_array_equal(filters[:, :3], others[:, :3])
    assert abs(filters[:, 3] - others[:, 3]).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(filters, axis=0), 1)
    assert (filters[:, 0] > 0).all()
    np.testing.assert_allclose(filters[:, 1], -filters[::-1, 1], atol=1e-12)
    np.testing.assert_allclose(filters[:, 2], filters[::-1, 2], atol=1e-12)
    slope = np.gradient(filters[:, 0])
    assert slope @ filters[:, 1] / np.linalg.norm(slope) > 0.99
