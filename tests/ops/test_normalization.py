"""Normalisations: the reference's numbers, NumPy, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.ops.normalization import group_norm, rms_norm


def last(x):
    return np.moveaxis(x, 1, -1)


def test_values_and_gradients_of_the_rms_norm_equal_the_reference(golden, precision):
    arrays = golden("polar/baseline_parts")
    given = tuple(
        precision.array(x) for x in (last(arrays["rms.in0"]), arrays["rms.p.gamma"], arrays["rms.p.beta"])
    )
    weights = precision.array(last(arrays["rms.w"]))
    out, pull = jax.vjp(rms_norm, *given)
    precision.assert_value(out, last(arrays["rms.out" + precision.suffix]))
    expected = [last(arrays["rms.din0" + precision.suffix])]
    expected += [arrays[f"rms.grad.{name}{precision.suffix}"] for name in ("gamma", "beta")]
    for actual, slope in zip(pull(weights), expected, strict=True):
        precision.assert_gradient(actual, slope)


def test_the_rms_norm_of_a_scaled_map_is_that_of_the_map():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 8)), jnp.float32)
    one, zero = jnp.ones(8), jnp.zeros(8)
    np.testing.assert_allclose(rms_norm(100 * x, one, zero), rms_norm(50 * x, one, zero), rtol=1e-4)


def test_the_group_norm_gives_each_group_of_each_image_zero_mean_and_unit_variance():
    random = np.random.default_rng(0)
    x = random.normal(2, 3, size=(5, 4, 2, 3, 12))
    scale, shift = random.normal(size=(2, 12))
    split = x.reshape(5, 4, 2, 3, 4, 3)
    centred = split - split.mean((0, 1, 5), keepdims=True)
    normal = centred / np.sqrt((centred**2).mean((0, 1, 5), keepdims=True) + 1e-5)
    actual = group_norm(*(jnp.asarray(a, jnp.float32) for a in (x, scale, shift)), groups=4)
    np.testing.assert_allclose(actual, normal.reshape(x.shape) * scale + shift, rtol=1e-4, atol=1e-5)
