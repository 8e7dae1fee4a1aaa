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
from polarjax.ops import dynamics, summaries
from polarjax.ops.backend import prefers_blocks
from polarjax.ops.polar_decomposition import decompose
from polarjax.ops.weighted_amplitudes import weighted_amplitudes

BLOCK_PIXELS = 64


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

        def pool_one(example, window=window, rest=rest):
            session, maps, *given = example
            summarize = functools.partial(_summarize, options, weights.alphas, mixing, rest)
            return _pool_blocks(window[session], maps, lambda block: summarize(block, *given))

        examples = (
            jnp.arange(batch) % len(window),
            tuple(_affine(x.reshape(batch, n_frames, -1, x.shape[-1])) for x in maps),
            decay.reshape(batch, n_frames),
            turn,
        )
        pooled.append(jax.lax.map(pool_one, examples))
    return jnp.stack(pooled, axis=2)


def _affine(x: Float[Array, "B T P C"]) -> Float[Array, "B T P C+1"]:
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)


def _pool_blocks(
    window: Float[Array, "W P"], maps: tuple, summarize: Callable[[tuple], list[Float[Array, "p M"]]]
) -> Float[Array, "W D"]:
    """Summarises the maps [T, P, c] in blocks of p pixels, and pools."""
    n_blocks = -(-window.shape[1] // BLOCK_PIXELS)
    missing = n_blocks * BLOCK_PIXELS - window.shape[1]

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
        return jnp.moveaxis(padded.reshape(len(x), n_blocks, BLOCK_PIXELS, -1), 1, 0)

    features = jax.lax.map(summarize, tuple(cut(x) for x in maps))
    padded = jnp.pad(window, ((0, 0), (0, missing)))
    pooled = [jnp.dot(padded, x.reshape(-1, x.shape[-1]), precision="highest") for x in features]
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
    relaxing = decay if options.dynamics == "framewise" else jnp.ones_like(decay)
    newest = [max(len(decay) - 1 - back, 0) for back in range(3)]
    parts = jax.checkpoint(functools.partial(_of_newest, options))(
        mixing,
        rest,
        [[x[t] for x in maps] for t in newest],
        [relaxing[t] for t in newest],
        [[x[t] for x in turn] for t in newest],
    )
    parts |= _averages(options, alphas, mixing, rest, maps, relaxing)
    return [parts[name] for name in options.summaries]


def _of_newest(
    options: PassOptions, mixing: list[Array], rest: Array, maps: list, decay: list, turn: list
) -> dict[str, Float[Array, "p M"]]:
    """Returns the summaries that need the newest frames alone, which are given from the newest back."""
    seen = [
        [jnp.dot(x, w, precision="highest") for x, w in zip(frame, mixing, strict=True)] for frame in maps
    ]
    states = [decompose(*pair, pose_floor=options.pose_floor) for pair in seen]
    last, before = (
        dynamics.relax_amplitude(amplitude, jnp.broadcast_to(rest, amplitude.shape), fade)
        for (amplitude, *_), fade in zip(states[:2], decay[:2], strict=True)
    )

    def pose(back: int) -> tuple[Array, Array]:
        _, even, odd = states[back]
        if options.dynamics == "none":
            return even, odd
        return dynamics.rotate(even, odd, *(jnp.broadcast_to(part, even.shape) for part in turn[back]))

    parts = {
        "last": lambda: last,
        "derivative": lambda: last - before,
        "energy": lambda: summaries.pose_energy(pose(0), pose(2)),
        "even": lambda: last * pose(0)[0],
        "odd": lambda: last * pose(0)[1],
    }
    return {name: make() for name, make in parts.items() if name in options.summaries}


def _averages(
    options: PassOptions, alphas: dict, mixing: list[Array], rest: Array, maps: tuple, decay: Array
) -> dict[str, Float[Array, "p M"]]:
    """Returns the averages of the relaxed amplitude, weighted sums of the amplitudes A_t and of rest.

    sum_t c_t (abar + (A_t - abar) g_t) = sum_t c_t g_t A_t + abar sum_t c_t (1 - g_t)
    """
    names = [name for name in ("fast", "slow") if name in options.summaries]
    if not names:
        return {}
    ages = jnp.arange(len(decay) - 1, -1, -1, dtype=decay.dtype)
    shares = []
    for name in names:
        alpha = alphas[f"alpha_{name}"]
        share = (1 - alpha) * alpha**ages
        corrected = options.bias_correction
        shares.append(share / summaries.ema_bias(alpha, ages[0] + 1) if corrected else share)
    each = jnp.stack(shares)
    sums = weighted_amplitudes(each * decay[None], tuple(mixing), maps)
    sums = sums + (each * (1 - decay[None])).sum(1)[:, None, None] * rest[None, None]
    return dict(zip(names, sums, strict=True))
