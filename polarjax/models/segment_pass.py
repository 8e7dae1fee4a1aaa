"""Polar-V1 on segments that nothing came before, in bands of pixels that stay in the cache.

What a map remembers it remembers of its own pixel, and pooling adds pixels up. So a band of rows is filtered in all
frames, moved through time, pooled and forgotten, and computed again for the gradient. Of maps whose average over
time is not asked for, only the scored frames are pooled. `causal_pass` is the definition; this is the same sums in
another order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models.causal_pass import LevelMemory, PassOptions, Weights, evolve
from polarjax.models.features import average_over_time, maps_to_pool
from polarjax.ops.backend import prefers_blocks, stage
from polarjax.ops.pair_dynamics import evolve_pairs
from polarjax.ops.polar_decomposition import decompose

BAND_PIXELS = 128


def computes(model: Any) -> bool:
    """Whether a `PolarV1` is computed in bands: in float32, on a backend that gains from them."""
    return model.dtype == "float32" and prefers_blocks()


def pool_segments(
    options: PassOptions,
    weights: Weights,
    bank: Any,
    levels: list[Float[Array, "B T _ _ C"]],
    strides: tuple[int, ...],
    motion: tuple,
    n_scored: int,
) -> Float[Array, "n B W L D"]:
    """Returns the pooled features of the last n frames of every segment.

    Args:
      bank: the `QuadratureBank`, its rows every `strides[level]` pixels.
      levels: of the pyramid, all frames of all segments; example i has session i % S.
      motion: what `causal_pass.motion` returns.
      n_scored: n.
    """
    decay, drive_gain, rotation = (jax.tree.map(_of_pixels, part) for part in motion)
    batch, n_frames = levels[0].shape[:2]
    features = []
    for level, image in enumerate(levels):
        window = weights.windows[level]
        rows = max(BAND_PIXELS // window.shape[3], 1)
        bands, respond = bank.in_bands(image, strides[level], rows)
        windows = _cut_windows(window, rows)
        pool_band = functools.partial(
            _pool_band, options, weights.resting_amplitude[level], respond, n_scored
        )
        examples = (jnp.arange(batch) % len(window), bands, decay, drive_gain, rotation[level])
        pooled = jax.lax.map(functools.partial(_pool_example, pool_band, windows), examples)
        pooled = {name: jnp.moveaxis(x, 0, 1) for name, x in pooled.items()}
        seen = (jnp.ones((), bool), 1 + jnp.arange(n_frames))
        nothing = jnp.zeros((batch, window.shape[1], bank.n_pairs), image.dtype)
        _, summary = average_over_time(
            options.summaries, options.bias_correction, weights.alphas, (nothing,) * 3, seen, pooled
        )
        features.append(summary[-n_scored:])
    return jnp.stack(features, axis=3)


def _pool_example(
    pool_band: Callable, windows: Float[Array, "S b N p"], example: tuple
) -> dict[str, Float[Array, "_ N M"]]:
    """Adds up the bands of one segment."""
    session, bands, *motion = example
    parts = (windows[session], bands)

    @jax.checkpoint
    def add(total, band):
        return jax.tree.map(jnp.add, total, pool_band(motion, *band)), None

    shapes = jax.eval_shape(pool_band, motion, *jax.tree.map(lambda x: x[0], parts))
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, start, parts)[0]


def _of_pixels(x: Float[Array, "B T 1 1 m"]) -> Float[Array, "B T 1 m"]:
    return x[:, :, 0]


def _cut_windows(window: Float[Array, "S N h w"], rows: int) -> Float[Array, "S b N p"]:
    """Cuts windows into bands of rows, zero beyond the last row."""
    sessions, units, height, width = window.shape
    count = -(-height // rows)
    padded = jnp.pad(window, [(0, 0), (0, 0), (0, count * rows - height), (0, 0)])
    return jnp.moveaxis(padded.reshape(sessions, units, count, rows * width), 2, 1)


def _pool_band(
    options: PassOptions,
    rest: Float[Array, " _"],
    respond: Callable,
    n_scored: int,
    motion: list,
    window: Float[Array, "N p"],
    band: Any,
) -> dict[str, Float[Array, "_ N M"]]:
    """Filters, moves and pools the p pixels of a band in T frames; of all but the amplitude only the last n frames."""
    even, odd = stage(respond(band))
    fresh, nothing = jnp.ones((), bool), jnp.zeros(even.shape[1:], even.dtype)
    both = (nothing, nothing)
    memory = LevelMemory(nothing, both, (both, both), nothing, nothing, nothing)
    if options.dynamics == "recurrent":
        decay, gain, turn = motion
        evolved = evolve_pairs(
            options.pose_floor, options.start, (even, odd), rest, (decay, gain, tuple(turn))
        )
        state = (evolved[0], (), evolved[1:])
    else:
        amplitude, *pose = stage(decompose(even, odd, pose_floor=options.pose_floor))
        state = evolve(options, rest, memory, fresh, (amplitude, tuple(pose)), tuple(motion))
    maps, _ = maps_to_pool(options.summaries, memory.poses, fresh, stage(state))
    return {
        name: jnp.einsum("np,tpm->tnm", window, x if name == "last" else x[-n_scored:], precision="highest")
        for name, x in maps.items()
    }
