"""Amplitude and pose against the reference, and their behaviour where there is no response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.polar_decomposition import decompose, safe_normalize

# The first rows of the reference's arrays are 0, 1e-4 and 1e-7 of a response; there pose gradients reach 1e6.
SPECIAL_ROWS = 3


def pairs(n=200, scale=1.0):
    return tuple(jnp.asarray(np.random.default_rng(3).normal(size=(2, n)) * scale, jnp.float32))


def test_amplitude_pose_and_gradients_equal_the_reference(golden, precision):
    arrays = golden("polar/polar_decompose")
    weights = (arrays["wA"], arrays["wU"][:, :, 0], arrays["wU"][:, :, 1])

    @jax.jit
    def parts_and_gradients(e, o):
        parts, pull_back = jax.vjp(lambda e, o: decompose(e, o, pose_floor=1e-6), e, o)
        return parts, pull_back(tuple(precision.array(w) for w in weights))

    parts, gradients = parts_and_gradients(precision.array(arrays["e"]), precision.array(arrays["o"]))
    pose = arrays[f"U{precision.suffix}"]
    precision.assert_value(parts[0], arrays[f"A{precision.suffix}"], "A")
    precision.assert_value(parts[1], pose[:, :, 0], "U even")
    precision.assert_value(parts[2], pose[:, :, 1], "U odd")
    for name, actual in zip(("de", "do"), gradients, strict=True):
        expected = arrays[f"{name}{precision.suffix}"]
        for row in range(SPECIAL_ROWS):
            precision.assert_gradient(actual[0, 0, 0, row], expected[0, 0, 0, row], f"{name} row {row}")
        precision.assert_gradient(actual[1:], expected[1:], name)
        precision.assert_gradient(actual[0, 0, 0, SPECIAL_ROWS:], expected[0, 0, 0, SPECIAL_ROWS:], name)


@pytest.mark.parametrize("pose_floor", [1e-3, 1e-6])
def test_gradients_equal_the_derivatives_written_out_in_float64(pose_floor):
    with jax.enable_x64(True):
        random = np.random.default_rng(4)
        e, o, w_amplitude, w_even, w_odd = random.normal(size=(5, 300))
        gradients = jax.jit(
            jax.grad(
                lambda e, o: sum(
                    jnp.vdot(w, part)
                    for w, part in zip(
                        (w_amplitude, w_even, w_odd), decompose(e, o, pose_floor=pose_floor), strict=True
                    )
                ),
                argnums=(0, 1),
            )
        )(jnp.asarray(e), jnp.asarray(o))
    size = np.hypot(e, o)
    across = (w_even * -o + w_odd * e) / size**2
    np.testing.assert_allclose(
        gradients[0], w_amplitude * e / size - across * o / size, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        gradients[1], w_amplitude * o / size + across * e / size, rtol=1e-9, atol=1e-12
    )


def test_the_squared_amplitude_is_the_energy_and_the_pose_is_on_the_unit_circle():
    even, odd = pairs()
    amplitude, u_even, u_odd = decompose(even, odd)
    np.testing.assert_allclose(amplitude**2, even**2 + odd**2, rtol=1e-5)
    np.testing.assert_allclose(u_even**2 + u_odd**2, 1, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(u_odd, u_even), np.arctan2(odd, even), atol=1e-5)
    np.testing.assert_allclose(amplitude * u_even, even, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pose_floor", [1e-3, 1e-6])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-8, 1e-4])
def test_a_blank_frame_has_finite_values_and_gradients(pose_floor, scale):
    @jax.jit
    def parts_and_gradients(even, odd):
        parts, pull_back = jax.vjp(lambda e, o: decompose(e, o, pose_floor=pose_floor), even, odd)
        return parts, pull_back(tuple(jnp.ones_like(part) for part in parts))

    (amplitude, *pose), gradients = parts_and_gradients(*pairs(50, scale))
    np.testing.assert_allclose(amplitude, 1e-3, rtol=1e-6)
    assert (np.abs(pose) <= 1 + 1e-6).all()
    assert (np.abs(gradients) <= 2.1 / pose_floor).all()


def test_half_precision_responses_are_decomposed_in_float32():
    even, odd = (x.astype(jnp.bfloat16) for x in pairs())
    parts = decompose(even, odd)
    expected = decompose(even.astype(jnp.float32), odd.astype(jnp.float32))
    for part, exact in zip(parts, expected, strict=True):
        assert part.dtype == jnp.float32
        np.testing.assert_array_equal(part, exact)


def test_safe_normalize_projects_onto_the_circle_and_is_finite_at_zero():
    even, odd = pairs()
    even, odd = even.at[0].set(0), odd.at[0].set(0)

    @jax.jit
    def pose_and_gradients(even, odd):
        pose, pull_back = jax.vjp(safe_normalize, even, odd)
        return pose, pull_back((jnp.ones_like(even), 2 * jnp.ones_like(odd)))

    pose, gradients = pose_and_gradients(even, odd)
    np.testing.assert_allclose(np.hypot(*pose)[1:], 1, rtol=1e-6)
    np.testing.assert_array_equal(np.stack(pose)[:, 0], 0)
    # The pose does not change with the size of the response.
    along = np.asarray(gradients[0]) * even + np.asarray(gradients[1]) * odd
    np.testing.assert_allclose(along[1:], 0, atol=1e-5)
    np.testing.assert_allclose(np.stack(gradients)[:, 0], [1e3, 2e3], rtol=1e-6)
