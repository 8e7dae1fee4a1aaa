"""Polar-V1 on segments that nothing came before, in bands of pixels that stay in the cache.

What a map remembers it remembers of its own pixel, and pooling adds pixels up. So a band of rows is filtered, moved
through time, pooled and forgotten, and computed again for the gradient. Of maps whose average over time is not asked
for, only the scored frames are pooled. `causal_pass` is the definition; this is the same sums in another order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models.causal_pass import LevelMemory, PassOptions, Weights, evolve
from polarjax.models.features import (
    AMPLITUDE_SUMMARIES,
    average_over_time,
    maps_to_pool,
    mix_over_time,
)
from polarjax.ops.backend import prefers_blocks
from polarjax.ops.pair_dynamics import pool_pairs
from polarjax.ops.pair_frames import FRAMES_BEFORE, SHOWN, PairForm, halves
from polarjax.ops.polar_decomposition import decompose
from polarjax.ops.products import pool_rows

# fewer would make products too small, more leave the cache with all work of a frame; in multiples of a vector
BAND_PIXELS, PIXELS_TOGETHER = 256, 16


def computes(model: Any, n_before: int) -> bool:
    """Whether a `PolarV1` is computed in bands, given the number of frames before the first scored one.

    In float32, on a backend that gains from them; the gradient of recurrent dynamics looks two frames back.
    """
    enough = model.dynamics != "recurrent" or n_before >= FRAMES_BEFORE
    return enough and prefers_bands(model)


def prefers_bands(model: Any) -> bool:
    """Whether maps are computed band by band: in float32, on a backend that gains from it."""
    return model.dtype == "float32" and prefers_blocks()


def band_size(height: int, width: int, limit: int) -> tuple[int, int]:
    """Returns how many rows of at most `limit` pixels are a band, and how many pixels when the last vector is full."""
    count = -(-height // max(limit // width, 1))
    rows = -(-height // count)
    return rows, -(-rows * width // PIXELS_TOGETHER) * PIXELS_TOGETHER


def pool_segments(
    options: PassOptions,
    weights: Weights,
    bank: Any,
    levels: list[Float[Array, "B T _ _ C"]],
    strides: tuple[int, ...],
    motion: tuple,
    *,
    n_scored: int,
) -> list[dict[str, Float[Array, "B W _ M"]]]:
    """Returns the pooled maps of every level: of the last n frames, and of all frames for averages of the amplitude.

    Args:
      bank: the `QuadratureBank`, its rows every `strides[level]` pixels.
      levels: of the pyramid, all frames of all segments; example i has session i % S.
      motion: what `causal_pass.motion` returns.
      n_scored: n.
    """
    *rates, rotation = jax.tree.map(_of_pairs, motion)
    batch, n_frames = levels[0].shape[:2]
    every_frame = set(AMPLITUDE_SUMMARIES) & set(options.summaries)
    names = ("last",) * bool(every_frame) + tuple(name for name in SHOWN if name in options.summaries)
    keeps = bank.kind == "dense"
    form, maps = PairForm(options.pose_floor, options.start, names, n_scored, keeps), []
    pool_bands = (
        pool_pairs if options.dynamics == "recurrent" else functools.partial(_pool_framewise, options)
    )
    for level, image in enumerate(levels):
        window, rest = weights.windows[level], weights.resting_amplitude[level]
        grid = bank.band_grid(*window.shape[2:])
        n_rows, n_pixels = band_size(*grid, limit=BAND_PIXELS)
        bands, filters, respond = bank.in_bands(image, strides[level], n_rows, n_pixels)
        windows = cut_windows(window.reshape(*window.shape[:2], *grid), n_rows, n_pixels)

        def pool_example(
            example: tuple, respond=respond, filters=filters, rest=rest, windows=windows
        ) -> dict:
            session, bands, *rates, turn = example
            moves = (*rates, tuple(turn))
            pooled = pool_bands(form, respond, filters, bands, rest, moves, windows[session])
            return {name: jnp.moveaxis(x, -1, 0) for name, x in pooled.items()}

        examples = (jnp.arange(batch) % len(window), bands, *rates, rotation[level])
        maps.append(jax.lax.map(pool_example, examples))
    return maps


def drive_units(
    units: Any, kernel: Float[Array, "S N L F"], bias: Float[Array, "S N"], given: tuple, n_scored: int
) -> tuple[Float[Array, "n B N"], Float[Array, "n B N L F"]]:
    """Returns what drives every unit in the last n frames, and the features that were weighed for it.

    Args:
      units: the `GaussianReadout`.
      given: the arguments of `pool_segments`.
    """
    options, weights, *_ = given
    alphas, maps = weights.alphas, pool_segments(*given, n_scored=n_scored)
    weighed = drive(options, alphas, maps, units.by_window(kernel), n_scored)
    features = summarize(options, alphas, maps, n_scored)
    return units.add_windows(weighed, bias), units.by_unit(features)


def summarize(
    options: PassOptions,
    alphas: dict[str, Array],
    maps: list[dict[str, Float[Array, "B W _ M"]]],
    n_scored: int,
) -> Float[Array, "n B W L D"]:
    """Returns the features of the last n frames, from the pooled maps."""
    features = []
    for level in maps:
        pooled = {name: jnp.moveaxis(x, 2, 0) for name, x in level.items()}
        longest = max(pooled.values(), key=len)
        seen = (jnp.ones((), bool), 1 + jnp.arange(len(longest)))
        nothing = (jnp.zeros_like(longest[0]),) * 3
        _, summary = average_over_time(
            options.summaries, options.bias_correction, alphas, nothing, seen, pooled
        )
        features.append(summary[-n_scored:])
    return jnp.stack(features, axis=3)


def drive(
    options: PassOptions,
    alphas: dict[str, Array],
    maps: list[dict[str, Float[Array, "B W _ M"]]],
    kernel: Float[Array, "S W L D"],
    n_scored: int,
) -> Float[Array, "n B W"]:
    """Returns what `summarize` and the kernel give: the same sums, with the few numbers of units averaged over time."""
    names = options.summaries
    split = kernel.reshape(*kernel.shape[:3], len(names), -1)
    batch = len(jax.tree.leaves(maps)[0])
    split = split[jnp.arange(batch) % len(kernel)]
    mixed: dict[str, Any] = dict.fromkeys(names, 0.0)
    for level, pooled in enumerate(maps):
        for name, x in pooled.items():
            made = [name] if name in SHOWN else AMPLITUDE_SUMMARIES
            made = [i for i, summary in enumerate(names) if summary in made]
            weighed = jnp.einsum(
                "bwkm,bwjm->kbwj", x, split[:, :, level, made[0] : made[-1] + 1], precision="highest"
            )
            for i in made:
                mixed[names[i]] += weighed[..., i - made[0]]
    return mix_over_time(options.bias_correction, alphas, mixed, n_scored)


def _of_pairs(x: Float[Array, "B T 1 1 m"]) -> Float[Array, "B T m 1"]:
    return x[:, :, 0, 0, :, None]


def cut_windows(window: Float[Array, "S N h w"], rows: int, n_pixels: int) -> Float[Array, "S b N p"]:
    """Cuts windows into bands of rows, zero where the image has no pixel."""
    sessions, units, height, width = window.shape
    count = -(-height // rows)
    padded = jnp.pad(window, [(0, 0), (0, 0), (0, count * rows - height), (0, 0)])
    bands = jnp.moveaxis(padded.reshape(sessions, units, count, rows * width), 2, 1)
    return jnp.pad(bands, [(0, 0), (0, 0), (0, 0), (0, n_pixels - rows * width)])


def _pool_framewise(
    options: PassOptions,
    form: PairForm,
    respond: Callable,
    filters: Any,
    bands: Any,
    rest: Float[Array, " _"],
    moves: tuple,
    windows: Float[Array, "b N p"],
) -> dict[str, Float[Array, "_ _ N"]]:
    """Computes what `pool_pairs` does where maps have no memory."""

    @jax.checkpoint
    def pool_band(band: Any, window: Float[Array, "N p"]) -> dict[str, Array]:
        responses = jax.lax.map(jax.checkpoint(functools.partial(respond, filters)), band)
        fresh, nothing = jnp.ones((), bool), jnp.zeros_like(halves(responses)[0][0])
        both = (nothing, nothing)
        memory = LevelMemory(nothing, both, (both, both), nothing, nothing, nothing)
        amplitude, *pose = decompose(*halves(responses), pose_floor=options.pose_floor)
        state = evolve(options, rest[:, None], memory, fresh, (amplitude, tuple(pose)), moves)
        maps, _ = maps_to_pool(options.summaries, memory.poses, fresh, state)
        shown = {name: x if name == "last" else x[-form.n_shown :] for name, x in maps.items()}

        def pool(x: Float[Array, "t m p"]) -> Float[Array, "t m N"]:
            return pool_rows(x.reshape(-1, x.shape[2]), window).reshape(*x.shape[:2], -1)

        return {name: pool(shown[name]) for name in form.pooled}

    def add(total: Any, given: tuple) -> tuple:
        return jax.tree.map(jnp.add, total, pool_band(*given)), None

    shapes = jax.eval_shape(pool_band, *jax.tree.map(lambda x: x[0], (bands, windows)))
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, start, (bands, windows))[0]
