"""Weighted sums of amplitudes: the blocks with their gradient, against the definition that JAX differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.mixed_pairs import weighted_amplitudes, weighted_amplitudes_at_once
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR


@pytest.mark.parametrize(("n_sums", "n_frames", "depth"), [(2, 7, 1), (1, 1, 2), (2, 10, 3)])
def test_sums_and_all_their_slopes_are_those_of_the_definition(n_sums, n_frames, depth):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        maps = [random.standard_normal((n_frames, 6, depth)) for _ in range(2)]
        maps[0][:, 2:4] = maps[1][:, 2:4] = 0  # amplitudes below the floor
        maps[0][0, 1] *= 1e-5
        maps[1][0, 1] *= 1e-5
        mixing = random.standard_normal((2, depth + 1, 3))
        mixing[:, -1, 0] = 0  # without a bias, which is above the floor
        given = (
            jnp.asarray(random.standard_normal((n_sums, n_frames))),
            tuple(map(jnp.asarray, mixing)),
            tuple(map(jnp.asarray, maps)),
        )
        slope = jnp.asarray(random.standard_normal((n_sums, 6, 3)))

        @jax.jit
        def both(given):
            forms = (weighted_amplitudes, weighted_amplitudes_at_once)
            results = [jax.vjp(form, *given) for form in forms]
            return [(value, pull(slope)) for value, pull in results]

        found, expected = both(given)
        assert [leaf.shape for leaf in jax.tree.leaves(found[1])] == [x.shape for x in jax.tree.leaves(given)]
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-10, atol=1e-12)


def test_a_blank_image_has_the_floor_as_amplitude_and_no_slope():
    maps = (jnp.zeros((3, 4, 1)),) * 2
    weights, mixing = jnp.asarray([[1.0, 2.0, 3.0]]), (jnp.asarray([[1.0, 1.0], [0.0, 0.0]]),) * 2
    sums, pull = jax.vjp(weighted_amplitudes, weights, mixing, maps)
    np.testing.assert_allclose(sums, 6 * AMPLITUDE_FLOOR, rtol=1e-6)
    of_weights, *rest = pull(jnp.ones_like(sums))
    np.testing.assert_allclose(of_weights, 8 * AMPLITUDE_FLOOR, rtol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(rest))
