"""The maps that a readout pools, before they are pooled: what self-supervision learns from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models import causal_pass, segment_pass
from polarjax.models.causal_pass import PassOptions
from polarjax.models.layers import Behavior
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops import dynamics, summaries
from polarjax.ops.laplacian_pyramid import laplacian_pyramid
from polarjax.ops.pair_frames import halves
from polarjax.ops.polar_decomposition import decompose, safe_normalize

LINEAR = ("last", "fast", "slow", "derivative")
# about as many pixels as fit the cache with the maps of a frame
BAND_PIXELS = 182


class Moves(NamedTuple):
    """What the frames of an example do to its maps; with a leading axis, of several examples.

    Attributes:
      rows: weights over time of the linear summaries at each of F frames, see `time_weights`.
      decay: of the amplitude.
      turn: cosine and sine that the pose turns by.
      turned: weights over time of the pose, see `pose_weights`; None where it is that of each frame.
    """

    rows: Float[Array, "*B F R K"]
    decay: Float[Array, "*B T 1 1"]
    turn: tuple[Array, Array]
    turned: tuple[Array, Array] | None


def summary_maps(
    model: PolarV1,
    stimulus: Float[Array, "B T H W C"],
    gaze: Float[Array, "B T 2"] | None,
    frames: tuple[int, ...],
) -> tuple[list[list[Float[Array, "B _ _ D"]]], Behavior | None]:
    """Returns the summaries at some frames of a segment that nothing came before, in one causal pass.

    A method of `PolarV1` in a file of its own: module.apply(variables, stimulus, gaze, frames, method=summary_maps).
    The maps of all frames are computed again for the gradient, and of the summaries only those of `frames` are made.
    They are as they are: `standardize` belongs to what is pooled.

    Args:
      frames: indices in 0..T-1; what is seen at frame t is frames 0..t.

    Returns:
      For each of `frames` the maps of every level, D the M maps of each summary; and the heads, None for
      dynamics 'none'.

    Raises:
      ConfigError: a frame is not in the segment, or the model needs gaze and there is none.
    """
    batch, n_frames, height, width = stimulus.shape[:4]
    for frame in frames:
        if not 0 <= frame < n_frames:
            raise ConfigError(
                f"Summaries of frame {frame} are asked of {n_frames} frames, 0 to {n_frames - 1}."
            )
    dtype = jnp.promote_types(stimulus.dtype, model.units.kernel.dtype)
    memory = model.initial_memory(batch, (height, width))
    motion, behavior, _ = model._behave(gaze, memory, (batch, n_frames), dtype)
    images = laplacian_pyramid(stimulus.astype(dtype), model.n_levels, normalized=model.pyramid_normalized)
    decay, pose_decay, drive_gain, rotation = jax.tree.map(lambda x: x[:, :, 0, 0, :, None], motion)
    weights, options = model._weights((height, width)), causal_pass.pass_options(model)
    weigh = functools.partial(time_weights, options, frames, weights.alphas)
    rows = jax.vmap(weigh)(decay[..., 0, 0], drive_gain[..., 0, 0])
    remembers = options.dynamics == "recurrent" and model.pose_memory
    compute = _in_bands if segment_pass.prefers_bands(model) else _whole
    levels = []
    for level, image in enumerate(images):
        turn = rotation[level]
        turned = jax.vmap(pose_weights)(pose_decay, turn) if remembers else None
        summarize = functools.partial(summarize_pixels, options, frames, weights.resting_amplitude[level])
        maps = compute(model, level, image, summarize, Moves(rows, decay, turn, turned))
        levels.append(jnp.moveaxis(maps, (1, 2), (0, -1)))
    return [[maps[i] for maps in levels] for i in range(len(frames))], behavior


def summarize_pixels(
    options: PassOptions,
    frames: tuple[int, ...],
    rest: Float[Array, " _"],
    moves: Moves,
    responses: Float[Array, "T R p"],
) -> Float[Array, "F D p"]:
    """Summarises p pixels of an example at some frames.

    Amplitude and pose are linear in what is observed, with weights that are alike at all positions: they are what the
    recurrences make of an impulse at each frame. So a few weighted sums over time take the place of the recurrence of
    whole maps, whose gradient is some ten times as slow on CPUs.

    Args:
      rest: abar of the level.
      responses: of all frames, the even ones of all pairs, then the odd ones.
    """
    amplitude, *pose = decompose(*halves(responses), pose_floor=options.pose_floor)
    if options.dynamics == "framewise":
        whole = jnp.broadcast_to(rest[None, :, None], amplitude.shape)
        amplitude = dynamics.relax_amplitude(amplitude, whole, moves.decay)
        pose = list(dynamics.rotate(*pose, *(jnp.broadcast_to(x, amplitude.shape) for x in moves.turn)))
    sums = weighted_sums(moves.rows, amplitude, rest)
    unit, found = options.dynamics == "recurrent", []
    for index, t in enumerate(frames):
        parts = dict(zip(linear_names(options), sums[index], strict=True))
        now, before = (pose_at(pose, moves.turned, at, unit=unit) for at in (t, max(t - 2, 0)))
        nonlinear = {
            "even": lambda last=parts["last"], now=now: last * now[0],
            "odd": lambda last=parts["last"], now=now: last * now[1],
            "energy": lambda now=now, before=before: summaries.pose_energy(now, before),
        }
        parts |= {name: nonlinear[name]() for name in options.summaries if name in nonlinear}
        found.append(jnp.concatenate([parts[name] for name in options.summaries]))
    return jnp.stack(found)


def linear_names(options: PassOptions) -> tuple[str, ...]:
    """Returns the summaries that are linear in the amplitude; the newest amplitude is always among them."""
    return tuple(name for name in LINEAR if name in options.summaries or name == "last")


def time_weights(
    options: PassOptions,
    frames: tuple[int, ...],
    alphas: dict[str, Array],
    decay: Float[Array, " T"],
    drive_gain: Float[Array, " T"],
) -> Float[Array, "F R K"]:
    """Returns the weights of R linear summaries at F frames: K = T + 1, of the amplitude at each frame and of abar."""
    n_frames, names = len(decay), linear_names(options)
    weights = jnp.eye(n_frames, n_frames + 1, dtype=decay.dtype)
    if options.dynamics == "recurrent":
        resting = jnp.zeros(n_frames + 1, decay.dtype).at[-1].set(1)
        start = weights[0] if options.start == "drive" else resting
        moves = (decay[:, None], drive_gain[:, None])
        weights = dynamics.evolve_amplitude(weights, start, resting, *moves, method=options.recurrence)
    unused = jnp.zeros((), decay.dtype)
    alpha = tuple(alphas.get(f"alpha_{name}", unused) for name in ("fast", "slow"))
    form = {"names": names, "bias_correction": options.bias_correction}
    rows = [summaries.summarize(weights[: t + 1], (weights[: t + 1],) * 2, *alpha, **form) for t in frames]
    return jnp.stack(rows).reshape(len(frames), len(names), n_frames + 1)


def pose_weights(
    decay: Float[Array, "T 1 1"], turn: tuple[Float[Array, "T M 1"], Float[Array, "T M 1"]]
) -> tuple[Float[Array, "T K M"], Float[Array, "T K M"]]:
    """Returns the complex weights at frame t of the observed pose at each of the K = T frames."""
    cosine, sine = (jnp.moveaxis(x, 2, 1) for x in turn)
    n_frames = len(cosine)
    shape = (n_frames, n_frames, cosine.shape[2])
    impulses = jnp.broadcast_to(jnp.eye(n_frames, dtype=cosine.dtype)[:, :, None], shape)
    observed = (impulses, jnp.zeros(shape, cosine.dtype))
    return dynamics.evolve_pose(observed, (observed[0][0], observed[1][0]), (cosine, sine), decay)


def weighted_sums(
    rows: Float[Array, "F R K"], amplitude: Float[Array, "T M p"], rest: Float[Array, " _"]
) -> Float[Array, "F R M p"]:
    """Returns sums over time of the amplitudes, and of the resting one."""
    flat = rows[..., :-1].reshape(-1, len(amplitude))
    seen = jnp.dot(flat, amplitude.reshape(len(amplitude), -1), precision="highest")
    resting = rows[..., -1, None, None] * rest[None, None, :, None]
    return seen.reshape(*rows.shape[:2], *amplitude.shape[1:]) + resting


def pose_at(
    pose: Sequence[Float[Array, "T M p"]], turned: tuple[Array, Array] | None, frame: int, *, unit: bool
) -> tuple[Float[Array, "M p"], Float[Array, "M p"]]:
    """Returns the pose at a frame: as observed, or by the weights of `pose_weights`; `unit`, of unit length."""
    if turned is None:
        return safe_normalize(pose[0][frame], pose[1][frame]) if unit else (pose[0][frame], pose[1][frame])
    # frames after it have no weight
    even, odd = (x[: frame + 1] for x in pose)
    real, imaginary = (x[frame, : frame + 1, :, None] for x in turned)
    return safe_normalize((real * even - imaginary * odd).sum(0), (imaginary * even + real * odd).sum(0))


def _whole(
    model: PolarV1, level: int, image: Float[Array, "B T _ _ C"], summarize: Callable, moves: Moves
) -> Float[Array, "B F D h w"]:
    """Summarises all pixels of a level at once: the form for accelerators."""
    responses = jnp.concatenate(model._filter(level, image.reshape(-1, *image.shape[2:])), axis=-1)
    height, width = responses.shape[1:3]
    flat = jnp.moveaxis(responses, -1, 1).reshape(*image.shape[:2], -1, height * width)
    maps = jax.vmap(jax.checkpoint(summarize))(moves, flat)
    return maps.reshape(*maps.shape[:3], height, width)


def _in_bands(
    model: PolarV1, level: int, image: Float[Array, "B T _ _ C"], summarize: Callable, moves: Moves
) -> Float[Array, "B F D h w"]:
    """Summarises a level in bands of rows that stay in the cache with all their frames; see `segment_pass`."""
    stride = model.bank_strides[level]
    height, width = (-(-side // stride) for side in image.shape[2:4])
    grid = model.bank.band_grid(height, width)
    rows, n_pixels = segment_pass.band_size(*grid, limit=BAND_PIXELS)
    bands, *filters, respond = model.bank.in_bands(image, stride, rows, n_pixels)
    respond = functools.partial(respond, *filters)

    @jax.checkpoint
    def of_band(moves: Moves, band: Any) -> Float[Array, "F D p"]:
        return summarize(moves, jax.lax.map(jax.checkpoint(respond), band))

    def of_example(example: tuple) -> Float[Array, "n F D p"]:
        return jax.lax.map(functools.partial(of_band, example[0]), example[1])

    maps = jnp.moveaxis(jax.lax.map(of_example, (moves, bands)), 1, 3)[..., : rows * grid[1]]
    return maps.reshape(*maps.shape[:3], -1)[..., : height * width].reshape(*maps.shape[:3], height, width)
