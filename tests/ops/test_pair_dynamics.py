"""The recurrent dynamics of pairs: the gradient that is written by hand against the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics
from polarjax.ops.pair_dynamics import evolve_pairs
from polarjax.ops.polar_decomposition import decompose, safe_normalize

FLOOR = 1e-3


def by_definition(start, responses, rest, motion):
    amplitude, *pose = decompose(*responses, pose_floor=FLOOR)
    decay, gain, turn = motion
    first = amplitude[0] if start == "drive" else jnp.broadcast_to(rest, amplitude.shape[1:])
    a = dynamics.evolve_amplitude(amplitude, first, rest, decay, gain)
    z = dynamics.evolve_pose(tuple(pose), (pose[0][0], pose[1][0]), turn, decay)
    return a, *safe_normalize(*z)


@pytest.mark.parametrize("start", ["rest", "drive"])
@pytest.mark.parametrize(("n_frames", "turns"), [(1, 2), (5, 2), (4, 1)])
def test_values_and_all_slopes_are_those_of_the_definition(start, n_frames, turns):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        responses = random.standard_normal((2, n_frames, 3, 2))
        responses[:, :, 1] = 0  # a pixel that sees nothing
        responses[:, 0, 2] = 1e-5
        angle = jnp.asarray(random.standard_normal((n_frames, 1, turns)))
        rates = jnp.asarray(random.uniform(0.1, 0.9, (2, n_frames, 1, 1)))
        motion = (rates[0], rates[1], (jnp.cos(angle), jnp.sin(angle)))
        given = (tuple(map(jnp.asarray, responses)), jnp.asarray(random.standard_normal(2)), motion)
        slopes = tuple(jnp.asarray(random.standard_normal((n_frames, 3, 2))) for _ in range(3))

        @jax.jit
        def both(given):
            results = [
                jax.vjp(lambda *x: evolve_pairs(FLOOR, start, *x), *given),
                jax.vjp(lambda *x: by_definition(start, *x), *given),
            ]
            return [(value, pull(slopes)) for value, pull in results]

        found, expected = both(given)
        assert [leaf.shape for leaf in jax.tree.leaves(found[1])] == [x.shape for x in jax.tree.leaves(given)]
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-9)
