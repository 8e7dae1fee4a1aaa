"""Polar-V1 with memoryless maps on windows: only what the newest bin needs, in blocks that stay in the cache.

Without recurrence a frame's amplitude enters the newest bin through two weights, those of the averages, and its pose
only at two frames. So no map is kept: a block of pixels of all frames is filtered, weighed, pooled and forgotten, and
computed again for the gradient. `causal_pass` is the definition; this is the same sums in another order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.models.causal_pass import PassOptions, Weights
from polarjax.ops import dynamics, summaries
from polarjax.ops.backend import prefers_blocks
from polarjax.ops.polar_decomposition import decompose

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
    decay, _, rotation = motion
    batch, n_frames = decay.shape[:2]
    mixing, pooled = bank.mixing(), []
    for level, image in enumerate(levels):
        maps = bank.separate(image.reshape(-1, *image.shape[2:]), strides[level])
        window = weights.windows[level].reshape(*weights.windows[level].shape[:2], -1)
        rest = jnp.broadcast_to(weights.resting_amplitude[level], mixing[0].shape[1:])
        turn = tuple(part.reshape(batch, n_frames, 1, -1) for part in rotation[level])

        def pool_one(example, of_level=(window, rest)):
            session, maps, decay, turn = example
            return _pool_window(
                options, weights.alphas, mixing, of_level[1], of_level[0][session], maps, decay, turn
            )

        examples = (
            jnp.arange(batch) % len(window),
            tuple(_affine(x.reshape(batch, n_frames, -1, x.shape[-1])) for x in maps),
            decay.reshape(batch, n_frames, 1, 1),
            turn,
        )
        pooled.append(jax.lax.map(pool_one, examples))
    return jnp.stack(pooled, axis=2)


def _affine(x: Float[Array, "B T P C"]) -> Float[Array, "B T P C+1"]:
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)


def _pool_window(options, alphas, mixing, rest, window, maps, decay, turn) -> Float[Array, "N D"]:
    """Adds up blocks of pixels of one window of frames."""
    n_blocks = max(round(window.shape[1] / BLOCK_PIXELS), 1)
    missing = -window.shape[1] % n_blocks
    size = (window.shape[1] + missing) // n_blocks

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)))
        return padded.reshape(len(x), n_blocks, size, *x.shape[2:]).swapaxes(0, 1)

    @jax.checkpoint
    def block(total, part):
        features = _summarize(options, alphas, mixing, rest, part[1:], decay, turn)
        return total + jnp.dot(part[0], features, precision="highest"), None

    depth = len(options.summaries) * len(rest)
    return jax.lax.scan(block, jnp.zeros((len(window), depth), window.dtype), (cut(window), *map(cut, maps)))[
        0
    ]


def _summarize(
    options: PassOptions,
    alphas: dict,
    mixing: list[Array],
    rest: Array,
    maps: tuple,
    decay: Array,
    turn: tuple,
) -> Float[Array, "p D"]:
    """Summarises T frames of p pixels at the newest; the channels are those of `summaries.summarize`."""
    n_frames, pixels = maps[0].shape[:2]
    even, odd = (
        jnp.einsum("fc,cm->fm", x.reshape(n_frames * pixels, -1), w, precision="highest").reshape(
            n_frames, pixels, -1
        )
        for x, w in zip(maps, mixing, strict=True)
    )
    amplitude, *_ = decompose(even, odd, pose_floor=options.pose_floor)
    if options.dynamics == "framewise":
        amplitude = dynamics.relax_amplitude(amplitude, jnp.broadcast_to(rest, amplitude.shape), decay)
    shown = [n_frames - 1, max(n_frames - 3, 0)]
    poses = [_pose(options, even[t], odd[t], turn[0][t], turn[1][t]) for t in shown]
    last, before = amplitude[-1], amplitude[max(n_frames - 2, 0)]
    flat = amplitude.reshape(n_frames, -1)
    ages = np.arange(n_frames - 1, -1, -1)

    def average(name: str) -> Array:
        alpha = alphas[f"alpha_{name}"]
        decays = (1 - alpha) * alpha ** jnp.asarray(ages, flat.dtype)
        total = jnp.einsum("t,tx->x", decays, flat, precision="highest").reshape(last.shape)
        return (
            total / summaries.ema_bias(alpha, jnp.asarray(n_frames, flat.dtype))
            if options.bias_correction
            else total
        )

    parts = {
        "last": lambda: last,
        "fast": lambda: average("fast"),
        "slow": lambda: average("slow"),
        "derivative": lambda: last - before,
        "energy": lambda: summaries.pose_energy(*poses),
        "even": lambda: last * poses[0][0],
        "odd": lambda: last * poses[0][1],
    }
    return jnp.concatenate([parts[name]() for name in options.summaries], axis=-1)


def _pose(options: PassOptions, even: Array, odd: Array, cosine: Array, sine: Array) -> tuple[Array, Array]:
    _, *pose = decompose(even, odd, pose_floor=options.pose_floor)
    if options.dynamics == "none":
        return pose[0], pose[1]
    turn = (jnp.broadcast_to(part, even.shape) for part in (cosine, sine))
    return dynamics.rotate(pose[0], pose[1], *turn)
