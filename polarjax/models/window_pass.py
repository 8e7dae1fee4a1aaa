"""Polar-V1 with memoryless maps on windows: only what the newest bin needs.

Without recurrence a frame's amplitude enters the newest bin through two weights, those of the averages, and its pose
only at two frames. So the averages are weighted sums of amplitudes, for which no map is kept, and of all else only
the last frames are computed. `causal_pass` is the definition; this is the same sums in another order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models.causal_pass import PassOptions, Weights
from polarjax.models.features import newest_shares
from polarjax.ops import summaries
from polarjax.ops.backend import prefers_blocks
from polarjax.ops.gaussian_pooling import pool_flat
from polarjax.ops.mixed_pairs import turned_poses, weighted_amplitudes

BLOCK_PIXELS = 128


def computes(model: Any) -> bool:
    """Whether a `PolarV1` has maps without memory, on a backend that gains from blocks."""
    without_memory = model.filters == "separable" and model.dynamics != "recurrent"
    return without_memory and model.dtype == "float32" and prefers_blocks()


def pool_windows(
    options: PassOptions,
    weights: Weights,
    bank: Any,
    levels: list[Float[Array, "B T _ _ C"]],
    strides: tuple[int, ...],
    motion: tuple,
) -> Float[Array, "B W L D"]:
    """Returns the pooled features of the newest frame of every window.

    Args:
      bank: the separable `QuadratureBank`, its rows every `strides[level]` pixels.
      levels: of the pyramid, all frames of all windows; example i has session i % S.
      motion: what `causal_pass.motion` returns.
    """
    decay, *_, rotation = motion
    batch, n_frames = decay.shape[:2]
    mixing, pooled = bank.mixing(), []
    for level, image in enumerate(levels):
        maps = bank.separate(image.reshape(-1, *image.shape[2:]), strides[level])
        window = weights.windows[level].reshape(*weights.windows[level].shape[:2], -1)
        rest = jnp.broadcast_to(weights.resting_amplitude[level], mixing[0].shape[1:])
        turn = tuple(part.reshape(batch, n_frames, 1, -1) for part in rotation[level])

        def pool_one(example, window=window, rest=rest):
            session, maps, *given = example
            summarize = functools.partial(_summarize, options, weights.alphas, mixing, rest)
            return _pool_blocks(window[session], maps, lambda block: summarize(block, *given))

        examples = (
            jnp.arange(batch) % len(window),
            tuple(x.reshape(batch, n_frames, -1, x.shape[-1]) for x in maps),
            decay.reshape(batch, n_frames),
            turn,
        )
        pooled.append(jax.lax.map(pool_one, examples))
    return jnp.stack(pooled, axis=2)


def _pool_blocks(
    window: Float[Array, "W P"], maps: tuple, summarize: Callable[[tuple], list[Float[Array, "p M"]]]
) -> Float[Array, "W D"]:
    """Summarises the maps [T, P, c] in blocks of p pixels, and pools."""
    n_blocks = -(-window.shape[1] // BLOCK_PIXELS)
    size = -(-window.shape[1] // n_blocks)
    missing = n_blocks * size - window.shape[1]

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
        return jnp.moveaxis(padded.reshape(len(x), n_blocks, size, -1), 1, 0)

    features = jax.lax.map(jax.checkpoint(summarize), tuple(cut(x) for x in maps))
    padded = jnp.pad(window, ((0, 0), (0, missing)))
    pooled = pool_flat(padded, tuple(x.reshape(-1, x.shape[-1]) for x in features))
    return jnp.concatenate(pooled, axis=1)


def _summarize(
    options: PassOptions,
    alphas: dict,
    mixing: list[Array],
    rest: Float[Array, " M"],
    maps: tuple[Float[Array, "T p c"], Float[Array, "T p c"]],
    decay: Float[Array, " T"],
    turn: tuple[Float[Array, "T 1 _"], Float[Array, "T 1 _"]],
) -> list[Float[Array, "p M"]]:
    """Summarises T frames of p pixels at the newest."""
    signed = ("last",) if {"even", "odd"} & set(options.summaries) else ()
    names = (*options.summaries, *signed)
    shares = newest_shares(names, options.bias_correction, alphas, len(decay), decay.dtype)
    parts = {}
    for n_frames, names in ((len(decay), ("fast", "slow")), (2, ("last", "derivative"))):
        wanted = [name for name in names if name in shares]
        if wanted:
            share = jnp.stack([shares[name][-n_frames:] for name in wanted])
            newest = tuple(x[-n_frames:] for x in maps)
            sums = _sum_amplitudes(mixing, rest, newest, decay[-n_frames:], share)
            parts |= dict(zip(wanted, sums, strict=True))

    n_frames = len(decay)
    shown = [max(n_frames - 1 - back, 0) for back in ((0, 2) if "energy" in options.summaries else (0,))]
    pairs = (1, mixing[0].shape[1])

    def pose(frame: tuple) -> tuple[Array, Array]:
        newest, angle = frame
        angle = tuple(jnp.broadcast_to(x, pairs) for x in angle)
        return turned_poses(options.pose_floor, tuple(mixing), newest, angle)

    # one after the other: a program for both at once is too large to be computed in vectors
    frames = jax.tree.map(lambda x: jnp.stack([x[t] for t in shown]), (maps, turn))
    even, odd = jax.lax.map(pose, frames)
    of_poses = {
        "energy": lambda: summaries.pose_energy((even[0], odd[0]), (even[1], odd[1])),
        "even": lambda: parts["last"] * even[0],
        "odd": lambda: parts["last"] * odd[0],
    }
    return [of_poses[name]() if name in of_poses else parts[name] for name in options.summaries]


def _sum_amplitudes(
    mixing: list[Array],
    rest: Float[Array, " M"],
    maps: tuple,
    decay: Float[Array, " T"],
    share: Float[Array, "n T"],
) -> Float[Array, "n p M"]:
    """Returns weighted sums of relaxed amplitudes, made of those of the amplitudes A_t and of rest.

    sum_t c_t (abar + (A_t - abar) g_t) = sum_t c_t g_t A_t + abar sum_t c_t (1 - g_t)
    """
    sums = weighted_amplitudes(share * decay[None], tuple(mixing), maps)
    return sums + (share * (1 - decay[None])).sum(1)[:, None, None] * rest[None, None]
