"""The maps that a readout pools, before they are pooled: what self-supervision learns from."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models import causal_pass
from polarjax.models.causal_pass import Frames, PassOptions
from polarjax.models.layers import Behavior
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops import dynamics, summaries
from polarjax.ops.laplacian_pyramid import laplacian_pyramid
from polarjax.ops.polar_decomposition import decompose, safe_normalize

LINEAR = ("last", "fast", "slow", "derivative")


def summary_maps(
    model: PolarV1,
    stimulus: Float[Array, "B T H W C"],
    gaze: Float[Array, "B T 2"] | None,
    frames: tuple[int, ...],
) -> tuple[list[list[Float[Array, "B _ _ D"]]], Behavior | None]:
    """Returns the summaries at some frames of a segment that nothing came before, in one causal pass.

    A method of `PolarV1` in a file of its own: module.apply(variables, stimulus, gaze, frames, method=summary_maps).
    The maps of all frames of a level are held at once, and computed again for the gradient; of the summaries only
    those of `frames` are made. They are as they are: `standardize` belongs to what is pooled.

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
    movie, weights = (
        Frames(images, *motion).pixels_first(len(model.n_units)),
        model._weights((height, width)),
    )
    options, levels = causal_pass.pass_options(model), []
    for level, image in enumerate(movie.levels):
        responses = model._filter(level, image.reshape(-1, *image.shape[2:]))
        responses = tuple(x.reshape(*image.shape[:2], *x.shape[1:]) for x in responses)
        moves = (movie.decay, movie.pose_decay, movie.drive_gain, movie.rotation[level])
        given = (weights.resting_amplitude[level], weights.alphas, moves, responses)
        summarize = functools.partial(summarize_level, options, model.pose_memory, frames)
        levels.append(jax.checkpoint(summarize)(*given))
    return [[examples_first(level[i]) for level in levels] for i in range(len(frames))], behavior


def summarize_level(
    options: PassOptions,
    pose_memory: bool,
    frames: tuple[int, ...],
    rest: Float[Array, " _"],
    alphas: dict[str, Array],
    motion: tuple,
    responses: tuple[Array, Array],
) -> list[Float[Array, "S h w b D"]]:
    """Summarises the maps of a level at some frames.

    Amplitude and pose are linear in what is observed, with weights that are alike at all positions: they are what the
    recurrences make of an impulse at each frame. So a few weighted sums over time take the place of the recurrence of
    whole maps, whose gradient is some ten times as slow on CPUs.

    Args:
      pose_memory: False where the pose is that of each frame.
      rest: abar of the level.
      motion: decay, decay of the pose, drive gain and rotation of the frames.
      responses: even and odd, of all frames [T, S, h, w, b, M].
    """
    amplitude, *pose = decompose(*responses, pose_floor=options.pose_floor)
    decay, pose_decay, drive_gain, turn = motion
    if options.dynamics == "framewise":
        amplitude = dynamics.relax_amplitude(amplitude, jnp.broadcast_to(rest, amplitude.shape), decay)
        pose = list(dynamics.rotate(*pose, *turn))
    moved = options.dynamics == "recurrent"
    weights = amplitude_weights(options, decay, drive_gain) if moved else identity_weights(decay)
    turns = pose_weights(pose_decay, turn) if moved and pose_memory else None
    unused = jnp.zeros((), amplitude.dtype)
    alpha = tuple(alphas.get(f"alpha_{name}", unused) for name in ("fast", "slow"))
    names = tuple(name for name in LINEAR if name in options.summaries or name == "last")
    form = {"names": names, "bias_correction": options.bias_correction}
    rows = [summaries.summarize(weights[: t + 1], (weights[: t + 1],) * 2, *alpha, **form) for t in frames]
    sums = weighted_sums(
        jnp.stack(rows).reshape(len(frames), *weights.shape[1:3], len(names), -1), amplitude, rest
    )
    found = []
    for index, t in enumerate(frames):
        parts = dict(zip(names, sums[index], strict=True))
        now, before = (pose_at(pose, turns, at, unit=moved) for at in (t, max(t - 2, 0)))
        nonlinear = {
            "even": lambda last=parts["last"], now=now: last * now[0],
            "odd": lambda last=parts["last"], now=now: last * now[1],
            "energy": lambda now=now, before=before: summaries.pose_energy(now, before),
        }
        parts |= {name: nonlinear[name]() for name in options.summaries if name in nonlinear}
        found.append(jnp.concatenate([parts[name] for name in options.summaries], -1))
    return found


def identity_weights(like: Float[Array, "T S 1 1 b 1"]) -> Float[Array, "T S b K"]:
    """Returns the weights of `amplitude_weights` where each frame is itself."""
    n_frames, n_sessions, _, _, batch, _ = like.shape
    impulses = jnp.eye(n_frames, n_frames + 1, dtype=like.dtype)[:, None, None]
    return jnp.broadcast_to(impulses, (n_frames, n_sessions, batch, n_frames + 1))


def amplitude_weights(
    options: PassOptions, decay: Float[Array, "T S 1 1 b 1"], drive_gain: Float[Array, "T S 1 1 b 1"]
) -> Float[Array, "T S b K"]:
    """Returns what is at frame t of an impulse at each of the T frames and, K = T + 1, of a resting amplitude of 1."""
    impulses = identity_weights(jnp.broadcast_to(decay, jnp.broadcast_shapes(decay.shape, drive_gain.shape)))
    resting = jnp.zeros(impulses.shape[-1], impulses.dtype).at[-1].set(1)
    start = impulses[0] if options.start == "drive" else jnp.broadcast_to(resting, impulses.shape[1:])
    moves = (x[:, :, 0, 0] for x in (decay, drive_gain))
    return dynamics.evolve_amplitude(impulses, start, resting, *moves, method=options.recurrence)


def pose_weights(
    decay: Float[Array, "T S 1 1 b 1"], turn: tuple[Array, Array]
) -> tuple[Float[Array, "T S K b M"], Float[Array, "T S K b M"]]:
    """Returns the complex weights at frame t of the observed pose at each of the K = T frames."""
    cosine, sine = (x[:, :, 0] for x in turn)
    n_frames = len(cosine)
    shape = (n_frames, cosine.shape[1], n_frames, *cosine.shape[3:])
    impulses = jnp.eye(n_frames, dtype=cosine.dtype)[:, None, :, None, None]
    observed = (jnp.broadcast_to(impulses, shape), jnp.zeros(shape, cosine.dtype))
    return dynamics.evolve_pose(observed, (observed[0][0], observed[1][0]), (cosine, sine), decay[:, :, 0])


def weighted_sums(
    rows: Float[Array, "F S b R K"], amplitude: Float[Array, "T S h w b M"], rest: Float[Array, " _"]
) -> Float[Array, "F R S h w b M"]:
    """Returns sums over time of the amplitudes, and of the resting one, by the weights of R rows at F frames."""
    seen = jnp.einsum("fsbrt,tshwbm->frshwbm", rows[..., :-1], amplitude, precision="highest")
    resting = jnp.moveaxis(rows[..., -1], 3, 1)[:, :, :, None, None, :, None]
    return seen + resting * rest[None, None, None, None, None, None]


def pose_at(
    pose: Sequence[Float[Array, "T S h w b M"]], turns: tuple[Array, Array] | None, frame: int, *, unit: bool
) -> tuple[Float[Array, "S h w b M"], Float[Array, "S h w b M"]]:
    """Returns the pose at a frame: as observed, or by the weights of `pose_weights`; `unit`, of unit length."""
    if turns is None:
        return safe_normalize(pose[0][frame], pose[1][frame]) if unit else (pose[0][frame], pose[1][frame])
    # frames after it have no weight
    even, odd = (x[: frame + 1] for x in pose)
    real, imaginary = (jnp.moveaxis(x[frame], 1, 0)[: frame + 1, :, None, None] for x in turns)
    return safe_normalize((real * even - imaginary * odd).sum(0), (imaginary * even + real * odd).sum(0))


def examples_first(maps: Float[Array, "S h w b D"]) -> Float[Array, "B h w D"]:
    """Restores the order of the examples: example i of B has session i % S."""
    ordered = jnp.moveaxis(maps, 3, 0)
    return ordered.reshape(-1, *ordered.shape[2:])
