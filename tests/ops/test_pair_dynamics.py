"""The recurrent dynamics of pairs: the gradient that is written by hand against the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics, summaries
from polarjax.ops.pair_dynamics import pool_pairs
from polarjax.ops.pair_frames import SHOWN, PairForm, halves
from polarjax.ops.polar_decomposition import decompose, safe_normalize

FLOOR = 1e-3


def by_definition(form, responses, rest, motion):
    amplitude, *pose = decompose(*halves(responses), pose_floor=form.pose_floor)
    decay, pose_decay, gain, turn = motion
    rest = jnp.broadcast_to(rest[:, None], amplitude.shape[1:])
    first = amplitude[0] if form.start == "drive" else rest

    def last_axis(x):
        return jnp.swapaxes(x, -1, -2)

    a = dynamics.evolve_amplitude(
        last_axis(amplitude), last_axis(first), rest[:, 0], last_axis(decay), last_axis(gain)
    )
    z = dynamics.evolve_pose(tuple(pose), (pose[0][0], pose[1][0]), turn, pose_decay)
    unit = safe_normalize(*z)
    n, a = form.n_shown, last_axis(a)
    maps = {
        "energy": summaries.pose_energy(tuple(x[-n:] for x in unit), tuple(x[-n - 2 : -2] for x in unit)),
        "even": a[-n:] * unit[0][-n:],
        "odd": a[-n:] * unit[1][-n:],
    }
    return a, {name: maps[name] for name in form.shown}


@pytest.mark.parametrize("start", ["rest", "drive"])
@pytest.mark.parametrize(
    ("n_frames", "n_shown", "turns", "shown"),
    [(3, 1, 2, SHOWN), (7, 1, 2, ("even",)), (7, 4, 1, SHOWN), (7, 5, 2, ("energy",)), (5, 2, 2, ())],
)
def test_values_and_all_slopes_are_those_of_the_definition(start, n_frames, n_shown, turns, shown):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        responses = random.standard_normal((n_frames, 4, 3))
        responses[:, :, 1] = 0  # a pixel that sees nothing
        responses[0, :, 2] = 1e-5
        angle = jnp.asarray(random.standard_normal((n_frames, turns, 1)))
        rates = jnp.asarray(random.uniform(0.1, 0.9, (3, n_frames, 1, 1)))
        motion = (*rates, (jnp.cos(angle), jnp.sin(angle)))
        given = (jnp.asarray(responses), jnp.asarray(random.standard_normal(2)), motion)
        form = PairForm(FLOOR, start, shown, n_shown)
        slopes = (
            jnp.asarray(random.standard_normal((n_frames, 2, 3))),
            {name: jnp.asarray(random.standard_normal((n_shown, 2, 3))) for name in shown},
        )

        @jax.jit
        def both(given):
            results = [
                jax.vjp(lambda *x: evolve_pairs(form, *x), *given),
                jax.vjp(lambda *x: by_definition(form, *x), *given),
            ]
            return [(value, pull(slopes)) for value, pull in results]

        found, expected = both(given)
        assert [leaf.shape for leaf in jax.tree.leaves(found[1])] == [x.shape for x in jax.tree.leaves(given)]
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-9)
