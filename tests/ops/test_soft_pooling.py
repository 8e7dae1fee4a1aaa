"""Pooling in space: the reference's numbers, and invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.soft_pooling import binomial_blur, soft_pool, squeeze_excite


def pixels_first(x):
    """[B, C, T, H, W] -> [H, W, B, T, C]."""
    return np.transpose(x, (3, 4, 0, 2, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_values_and_gradients_of_the_pooling_equal_the_reference(golden, precision, stride):
    arrays, name = golden("polar/baseline_parts"), f"aablur_s{stride}"

    def read(key):
        return precision.array(np.squeeze(arrays[f"{name}.p.{key}"]).T)

    def pool(x, *weights):
        return squeeze_excite(soft_pool(binomial_blur(x), stride=stride), weights[:2], weights[2:])

    keys = ("se.1.weight", "se.1.bias", "se.3.weight", "se.3.bias")
    x = precision.array(pixels_first(arrays[f"{name}.in0"]))
    out, pull = jax.vjp(jax.jit(pool), x, *(read(key) for key in keys))
    precision.assert_value(out, pixels_first(arrays[f"{name}.out{precision.suffix}"]))
    slopes = pull(precision.array(pixels_first(arrays[f"{name}.w"])))
    precision.assert_gradient(slopes[0], pixels_first(arrays[f"{name}.din0{precision.suffix}"]))
    for slope, key in zip(slopes[1:], keys, strict=True):
        expected = np.squeeze(arrays[f"{name}.grad.{key}{precision.suffix}"]).T
        precision.assert_gradient(slope, expected, key)


def test_a_blur_keeps_what_a_map_sums_to_and_shifts_with_it():
    x = np.zeros((9, 9, 1))
    x[4, 4] = 1
    blurred = np.asarray(binomial_blur(jnp.asarray(x)))
    np.testing.assert_allclose(blurred.sum(), 1)
    np.testing.assert_allclose(blurred[3:6, 3:6, 0], np.outer([1, 2, 1], [1, 2, 1]) / 16)
    np.testing.assert_array_equal(binomial_blur(jnp.asarray(np.roll(x, 2, 0))), np.roll(blurred, 2, 0))


def test_the_soft_pool_lies_between_the_mean_and_the_maximum_of_its_pixels():
    x = np.random.default_rng(0).normal(0, 5, size=(6, 8, 3))
    pooled = np.asarray(soft_pool(jnp.asarray(x), stride=2))
    tiles = x.reshape(3, 2, 4, 2, 3)
    assert (pooled > tiles.mean((1, 3))).all()
    assert (pooled < tiles.max((1, 3))).all()
