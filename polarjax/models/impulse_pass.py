"""Polar-V1 at a few frames: sums over time, weighed as the recurrences weigh an impulse.

Amplitude and pose are linear in what is observed, with weights that are alike at all positions: those that the
recurrences make of an impulse at each frame. So a few weighted sums over time (`ops.time_sums`) take the place of the
recurrence of whole maps. `causal_pass` is the definition; this is the same sums in another order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models.causal_pass import PassOptions, Weights
from polarjax.models.features import AMPLITUDE_SUMMARIES
from polarjax.models.segment_pass import band_size, cut_windows
from polarjax.ops import dynamics, summaries
from polarjax.ops.pair_frames import SHOWN
from polarjax.ops.polar_decomposition import safe_normalize
from polarjax.ops.products import pool_rows
from polarjax.ops.time_sums import sum_over_time, sum_over_time_at_once

BAND_PIXELS = 240


class Impulses(NamedTuple):
    """What an impulse at each of T frames leaves at others, at a level of an example; see `ops.time_sums`.

    Attributes:
      shares: in J linear summaries of the amplitude.
      resting: the share of abar in them.
      turns: in the pose at P frames, I = 2 P and K = 2 T.
    """

    shares: Float[Array, "*B J T"]
    resting: Float[Array, "*B J"]
    turns: Float[Array, "*B M I K"]


def maps_at(
    options: PassOptions,
    weights: Weights,
    bank: Any,
    levels: list[Float[Array, "B T _ _ C"]],
    strides: tuple[int, ...],
    motion: tuple,
    *,
    frames: tuple[int, ...],
    in_bands: bool,
) -> list[Float[Array, "B F D _ _"]]:
    """Returns the summaries at F frames of examples that nothing came before, of every level.

    The responses of all frames are computed again for the gradient.

    Args:
      bank: the `QuadratureBank`, its rows every `strides[level]` pixels.
      levels: of the pyramid, all frames of all examples.
      motion: what `causal_pass.motion` returns.
      in_bands: one frame of a band of pixels after the other, or all at once, which accelerators gain from.
    """
    found = []
    for level, (image, stride) in enumerate(zip(levels, strides, strict=True)):
        size = tuple(-(-side // stride) for side in image.shape[2:4])
        summarize = functools.partial(summarize_pixels, options, frames, weights.resting_amplitude[level])
        impulses = impulses_at(options, frames, weights.alphas, bank.n_pairs, motion, level)
        if in_bands:
            bands, sum_bands = _in_bands(options.pose_floor, bank, image, stride)

            def of_example(example: tuple, sum_bands=sum_bands, summarize=summarize, size=size) -> Array:
                sums = jax.checkpoint(sum_bands)(*example)
                maps = jax.vmap(summarize, in_axes=(None, 0))(example[0].resting, sums)
                return _whole_rows(maps, *bank.band_grid(*size)).reshape(*maps.shape[1:3], *size)

            found.append(jax.lax.map(of_example, (impulses, bands)))
        else:
            found.append(_at_once(options.pose_floor, bank, image, stride, summarize, impulses))
    return found


def pool_windows(
    options: PassOptions,
    weights: Weights,
    bank: Any,
    levels: list[Float[Array, "B T _ _ C"]],
    strides: tuple[int, ...],
    motion: tuple,
) -> Float[Array, "B W L D"]:
    """Returns the pooled features of the newest frame of every window, in bands; arguments as in `maps_at`.

    Example i has session i % S. The responses of all frames are kept for the gradient.
    """
    frames, pooled = (levels[0].shape[1] - 1,), []
    for level, (image, stride) in enumerate(zip(levels, strides, strict=True)):
        impulses = impulses_at(options, frames, weights.alphas, bank.n_pairs, motion, level)
        bands, sum_bands = _in_bands(options.pose_floor, bank, image, stride)
        window = weights.windows[level]
        grid = bank.band_grid(*window.shape[2:])
        windows = cut_windows(window.reshape(*window.shape[:2], *grid), *band_size(*grid, limit=BAND_PIXELS))
        summarize = functools.partial(summarize_pixels, options, frames, weights.resting_amplitude[level])

        def of_example(
            example: tuple, sum_bands=sum_bands, summarize=summarize, windows=windows
        ) -> Float[Array, "D W"]:
            session, impulses, bands = example

            # the maps of a band are made again for the gradient: to keep all that they are made from takes longer
            @functools.partial(jax.checkpoint, prevent_cse=False)
            def pool(sums: tuple[Array, Array], band_windows: Array) -> Array:
                (maps,) = summarize(impulses.resting, sums)
                return pool_rows(maps, band_windows)

            def add(total: Array, given: tuple) -> tuple[Array, None]:
                return total + pool(*given), None

            start = jnp.zeros((len(options.summaries) * bank.n_pairs, windows.shape[2]), windows.dtype)
            return jax.lax.scan(add, start, (sum_bands(impulses, bands), windows[session]))[0]

        sessions = jnp.arange(len(image)) % len(windows)
        pooled.append(jax.lax.map(of_example, (sessions, impulses, bands)))
    return jnp.moveaxis(jnp.stack(pooled, axis=1), -1, 1)


def impulses_at(
    options: PassOptions,
    frames: tuple[int, ...],
    alphas: dict[str, Array],
    n_pairs: int,
    motion: tuple,
    level: int,
) -> Impulses:
    """Returns the weights of what is observed, of every example."""
    decay, pose_decay, drive_gain, rotation = jax.tree.map(lambda x: x[:, :, 0, 0, :, None], motion)
    weigh = functools.partial(amplitude_impulses, options, frames, alphas)
    turn = functools.partial(pose_impulses, options, frames, n_pairs)
    shares, resting = jax.vmap(weigh)(decay[..., 0, 0], drive_gain[..., 0, 0])
    return Impulses(shares, resting, jax.vmap(turn)(pose_decay, rotation[level]))


def amplitude_impulses(
    options: PassOptions,
    frames: tuple[int, ...],
    alphas: dict[str, Array],
    decay: Float[Array, " T"],
    drive_gain: Float[Array, " T"],
) -> tuple[Float[Array, "J T"], Float[Array, " J"]]:
    """Returns the weights of the linear summaries at F frames: of the amplitude at each frame, and of abar."""
    n_frames, names = len(decay), linear_names(options)
    weights = jnp.eye(n_frames, n_frames + 1, dtype=decay.dtype)
    resting = jnp.zeros(n_frames + 1, decay.dtype).at[-1].set(1)
    if options.dynamics == "recurrent":
        start = weights[0] if options.start == "drive" else resting
        moves = (decay[:, None], drive_gain[:, None])
        weights = dynamics.evolve_amplitude(weights, start, resting, *moves, method=options.recurrence)
    elif options.dynamics == "framewise":
        whole = jnp.broadcast_to(resting, weights.shape)
        weights = dynamics.relax_amplitude(weights, whole, jnp.broadcast_to(decay[:, None], weights.shape))
    unused = jnp.zeros((), decay.dtype)
    alpha = tuple(alphas.get(f"alpha_{name}", unused) for name in ("fast", "slow"))
    form = {"names": names, "bias_correction": options.bias_correction}
    rows = [summaries.summarize(weights[: t + 1], (weights[: t + 1],) * 2, *alpha, **form) for t in frames]
    rows = jnp.concatenate(rows).reshape(-1, n_frames + 1)
    return rows[:, :-1], rows[:, -1]


def pose_impulses(
    options: PassOptions,
    frames: tuple[int, ...],
    n_pairs: int,
    decay: Float[Array, "T 1 1"],
    turn: tuple[Float[Array, "T m 1"], Float[Array, "T m 1"]],
) -> Float[Array, "M I K"]:
    """Returns the weights of the pose at the frames of `frames_of_poses`, even and odd."""
    shown, n_frames = frames_of_poses(options, frames), len(decay)
    if not shown:
        return jnp.zeros((n_pairs, 0, 0), decay.dtype)
    shape = (n_frames, n_frames, n_pairs)
    cosine, sine = (jnp.broadcast_to(jnp.moveaxis(x, 2, 1), (n_frames, 1, n_pairs)) for x in turn)
    impulses = jnp.broadcast_to(jnp.eye(n_frames, dtype=decay.dtype)[:, :, None], shape)
    observed = (impulses, jnp.zeros(shape, decay.dtype))
    if options.dynamics == "recurrent":
        first = (observed[0][0], observed[1][0])
        real, imaginary = dynamics.evolve_pose(observed, first, (cosine, sine), decay)
    else:
        real, imaginary = dynamics.rotate(*observed, *(jnp.broadcast_to(x, shape) for x in (cosine, sine)))
    real, imaginary = (x[jnp.asarray(shown)] for x in (real, imaginary))
    even, odd = jnp.concatenate([real, -imaginary], axis=1), jnp.concatenate([imaginary, real], axis=1)
    return jnp.moveaxis(jnp.stack([even, odd], axis=1).reshape(-1, 2 * n_frames, n_pairs), 2, 0)


def summarize_pixels(
    options: PassOptions,
    frames: tuple[int, ...],
    rest: Float[Array, " _"],
    resting: Float[Array, " J"],
    sums: tuple[Float[Array, "J M p"], Float[Array, "I M p"]],
) -> Float[Array, "F D p"]:
    """Makes the summaries of p pixels at F frames from their sums over time.

    Args:
      rest: abar of the level.
      resting: its share in the sums.
    """
    linear, poses = sums[0], jnp.unstack(sums[1])
    linear = linear + resting[:, None, None] * jnp.broadcast_to(rest, linear.shape[1:2])[None, :, None]
    linear = linear.reshape(len(frames), -1, *linear.shape[1:])
    shown, found = frames_of_poses(options, frames), []

    def pose_at(t: int) -> tuple[Array, Array]:
        index = 2 * shown.index(max(t, 0))
        pose = (poses[index], poses[index + 1])
        return safe_normalize(*pose) if options.dynamics == "recurrent" else pose

    for index, t in enumerate(frames):
        parts = dict(zip(linear_names(options), linear[index], strict=True))
        made = {
            "even": lambda last=parts["last"], t=t: last * pose_at(t)[0],
            "odd": lambda last=parts["last"], t=t: last * pose_at(t)[1],
            "energy": lambda t=t: summaries.pose_energy(pose_at(t), pose_at(t - 2)),
        }
        parts |= {name: made[name]() for name in options.summaries if name in made}
        found.append(jnp.concatenate([parts[name] for name in options.summaries]))
    return jnp.stack(found)


def linear_names(options: PassOptions) -> tuple[str, ...]:
    """Returns the summaries that are linear in the amplitude; the newest amplitude is always among them."""
    return tuple(name for name in AMPLITUDE_SUMMARIES if name in options.summaries or name == "last")


def frames_of_poses(options: PassOptions, frames: tuple[int, ...]) -> list[int]:
    """Returns the frames of which the summaries at some frames need the pose."""
    backs = (0, 2) if "energy" in options.summaries else (0,) if set(SHOWN) & set(options.summaries) else ()
    return sorted({max(t - back, 0) for t in frames for back in backs})


def _at_once(
    pose_floor: float,
    bank: Any,
    image: Float[Array, "B T _ _ C"],
    stride: int,
    summarize: Callable,
    impulses: Impulses,
) -> Float[Array, "B F D h w"]:
    """Computes the maps of a level with all frames at once."""
    responses = jnp.concatenate(bank(image.reshape(-1, *image.shape[2:]), stride=stride), axis=-1)
    size = responses.shape[1:3]
    flat = jnp.moveaxis(responses, -1, 1).reshape(*image.shape[:2], responses.shape[-1], -1)

    @jax.checkpoint
    def of_example(impulses: Impulses, responses: Float[Array, "T R p"]) -> Float[Array, "F D p"]:
        sums = sum_over_time_at_once(pose_floor, responses, impulses.shares, impulses.turns)
        return summarize(impulses.resting, sums)

    maps = jax.vmap(of_example)(impulses, flat)
    return maps.reshape(*maps.shape[:3], *size)


def _in_bands(
    pose_floor: float, bank: Any, image: Float[Array, "B T _ _ C"], stride: int
) -> tuple[Any, Callable]:
    """Returns the bands of every example, and what sums those of one over time."""
    grid = bank.band_grid(*(-(-side // stride) for side in image.shape[2:4]))
    bands, filters, respond = bank.in_bands(image, stride, *band_size(*grid, limit=BAND_PIXELS))

    def sum_bands(impulses: Impulses, bands: Any) -> tuple[Array, Array]:
        return sum_over_time(pose_floor, respond, filters, bands, impulses.shares, impulses.turns)

    return bands, sum_bands


def _whole_rows(maps: Float[Array, "b F D p"], height: int, width: int) -> Float[Array, "F D q"]:
    """Puts bands together to all pixels of a level."""
    rows, _ = band_size(height, width, limit=BAND_PIXELS)
    pixels = jnp.moveaxis(maps[..., : rows * width], 0, 2)
    return pixels.reshape(*pixels.shape[:2], -1)[..., : height * width]
