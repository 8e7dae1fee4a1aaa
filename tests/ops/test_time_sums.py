"""Sums over time of amplitudes and poses: bands and a gradient written by hand against the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.products import mix_planes
from polarjax.ops.time_sums import sum_over_time, sum_over_time_at_once

BANDS, FRAMES, CHANNELS, PAIRS, PIXELS, SUMS = 2, 4, 3, 2, 5, 3


def arguments(n_poses):
    random = np.random.default_rng(0)
    bands = random.standard_normal((BANDS, FRAMES, CHANNELS, PIXELS))
    bands[..., 1] = 0  # a pixel that sees nothing
    bands[:, 0, :, 2] = 1e-3  # one below the floor of the pose for a while
    bands[..., 3] *= 1e-7  # one below both floors
    shapes = ((CHANNELS, 2 * PAIRS), (SUMS, FRAMES), (PAIRS, n_poses, 2 * FRAMES * (n_poses > 0)))
    filters, shares, turns = (jnp.asarray(random.standard_normal(shape)) for shape in shapes)
    return filters, jnp.asarray(bands), shares, turns


@pytest.mark.parametrize(("pose_floor", "n_poses"), [(1e-3, 4), (1e-2, 2), (1e-3, 0)])
def test_values_and_all_slopes_are_those_of_the_definition(pose_floor, n_poses):
    def by_definition(filters, bands, shares, turns):
        responses = jnp.einsum("cr,btcp->btrp", filters, bands)
        return jax.vmap(lambda x: sum_over_time_at_once(pose_floor, x, shares, turns))(responses)

    @jax.jit
    def both(given):
        results = [
            jax.vjp(lambda *x: sum_over_time(pose_floor, mix_planes, *x), *given),
            jax.vjp(by_definition, *given),
        ]
        slopes = jax.tree.map(lambda x: jnp.cos(jnp.arange(1.0 * x.size)).reshape(x.shape), results[0][0])
        plain = sum_over_time(pose_floor, mix_planes, *given)
        return [(value, pull(slopes)) for value, pull in results], plain

    with jax.enable_x64(True):
        given = arguments(n_poses)
        (found, expected), plain = both(given)
        assert [leaf.shape for leaf in found[1]] == [leaf.shape for leaf in given]
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-9)
        for leaf, wanted in zip(plain, expected[0], strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-9)
