"""The recurrent dynamics of pairs: the gradient that is written by hand against the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics, pair_frames, summaries
from polarjax.ops.pair_dynamics import pool_pairs
from polarjax.ops.pair_frames import SHOWN, PairForm, halves
from polarjax.ops.polar_decomposition import decompose, safe_normalize
from polarjax.ops.products import mix_planes

FLOORS = {"rest": 1e-3, "drive": 1e-2}  # that of the amplitude, and one of its own
CHANNELS, PAIRS, PIXELS, UNITS = 3, 2, 5, 4


def by_definition(form, filters, bands, rest, motion, windows):
    """Adds up the bands, each with all of its maps."""

    def of_band(band, window):
        amplitude, *pose = decompose(
            *halves(jax.vmap(lambda x: filters.T @ x)(band)), pose_floor=form.pose_floor
        )
        decay, pose_decay, gain, turn = motion
        first = (
            amplitude[0] if form.start == "drive" else jnp.broadcast_to(rest[:, None], amplitude.shape[1:])
        )

        def pool(x):
            return jnp.einsum("tmp,np->tmn", x, window)

        def last_axis(x):
            return jnp.swapaxes(x, -1, -2)

        moves = (last_axis(x) for x in (decay, gain))
        a = last_axis(dynamics.evolve_amplitude(last_axis(amplitude), last_axis(first), rest, *moves))
        unit = safe_normalize(*dynamics.evolve_pose(tuple(pose), (pose[0][0], pose[1][0]), turn, pose_decay))
        n = form.n_shown
        maps = {
            "last": lambda: a,
            "energy": lambda: summaries.pose_energy(
                tuple(x[-n:] for x in unit), tuple(x[-n - 2 : -2] for x in unit)
            ),
            "even": lambda: a[-n:] * unit[0][-n:],
            "odd": lambda: a[-n:] * unit[1][-n:],
        }
        return {name: pool(maps[name]()) for name in form.pooled}

    return jax.tree.map(jnp.add, *(of_band(*given) for given in zip(bands, windows, strict=True)))


def arguments(n_frames, turns):
    random = np.random.default_rng(0)
    bands = random.standard_normal((2, n_frames, CHANNELS, PIXELS))
    bands[..., 1] = 0  # a pixel that sees nothing
    bands[:, 0, :, 2] = 1e-5
    bands[..., 3] *= 1e-7  # one whose pose stays below the floor
    angle = jnp.asarray(random.standard_normal((n_frames, turns, 1)))
    rates = jnp.asarray(random.uniform(0.1, 0.9, (3, n_frames, 1, 1)))
    others = ((CHANNELS, 2 * PAIRS), (PAIRS,), (2, UNITS, PIXELS))
    filters, rest, windows = (jnp.asarray(random.standard_normal(x)) for x in others)
    motion = (*rates, (jnp.cos(angle), jnp.sin(angle)))
    return filters, jnp.asarray(bands), rest, motion, windows


def values_and_slopes(form, given):
    """Returns those of the op and those of its definition."""

    @jax.jit
    def both(given):
        results = [
            jax.vjp(lambda *x: pool_pairs(form, mix_planes, *x), *given),
            jax.vjp(lambda *x: by_definition(form, *x), *given),
        ]
        leaves, structure = jax.tree.flatten(results[0][0])
        slopes = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in leaves]
        slopes = jax.tree.unflatten(structure, slopes)
        return [(value, pull(slopes)) for value, pull in results]

    return both(given)


@pytest.mark.parametrize("start", ["rest", "drive"])
@pytest.mark.parametrize(
    ("n_frames", "n_shown", "turns", "pooled"),
    [
        (3, 1, 2, SHOWN),
        (7, 1, 2, ("even",)),
        (7, 4, 1, ("last", *SHOWN)),
        (7, 5, 2, ("energy",)),
        (6, 2, 2, ("last", "odd")),
        (5, 2, 2, ("last",)),
    ],
)
def test_values_and_all_slopes_are_those_of_the_definition(
    start, n_frames, n_shown, turns, pooled, monkeypatch
):
    monkeypatch.setattr(pair_frames, "CHUNK_FRAMES", 3)  # chunks of unlike lengths
    with jax.enable_x64(True):
        given = arguments(n_frames, turns)
        found, expected = values_and_slopes(
            PairForm(FLOORS[start], start, pooled, n_shown, start == "rest"), given
        )
        assert [leaf.shape for leaf in jax.tree.leaves(found[1])] == [x.shape for x in jax.tree.leaves(given)]
        for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-9)


def test_slopes_in_single_precision_know_what_is_below_a_floor():
    given = arguments(7, 2)
    found, expected = values_and_slopes(PairForm(1e-3, "drive", ("last", *SHOWN), 4, False), given)
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max(initial=0))
