"""The causal pass of Polar-V1 over the frames of a movie, as pure functions of its options and parameters.

Maps are [K, S, h, w, B/S, M] for K frames of S sessions, so that a window times a map is one matrix product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models.features import average_over_time, maps_to_pool
from polarjax.models.layers import Behavior
from polarjax.ops import dynamics
from polarjax.ops.gaussian_pooling import pool
from polarjax.ops.gaze import GazeMemory
from polarjax.ops.polar_decomposition import decompose, safe_normalize


class LevelMemory(NamedTuple):
    """What a level hands from frame to frame.

    Attributes:
      amplitude: a_{t-1}.
      pose: z_{t-1}, even and odd.
      poses: unit poses u_{t-1} and u_{t-2}; empty where no summary needs them.
      average_fast, average_slow, pooled: running averages and newest value of the pooled amplitude.
    """

    amplitude: Float[Array, "S h w b M"]
    pose: tuple[Array, Array]
    poses: tuple[tuple[Array, Array], ...]
    average_fast: Float[Array, "B N M"]
    average_slow: Float[Array, "B N M"]
    pooled: Float[Array, "B N M"]


class Memory(NamedTuple):
    """All that the past leaves: frames seen so far, gaze memory, one memory a level."""

    n_seen: Array
    gaze: GazeMemory
    levels: tuple[LevelMemory, ...]


class Frames(NamedTuple):
    """K frames as the pass takes them, K leading.

    Attributes:
      levels: of the pyramid, [K, S, h, w, b, C] each; [B, K, h, w, C] before `pixels_first`, the rest alike.
      decay, pose_decay, drive_gain: of every frame, [K, S, 1, 1, b, 1].
      rotation: cos and sin of the phase step at every level, [K, S, 1, 1, b, M] each.
    """

    levels: list[Array]
    decay: Array
    pose_decay: Array
    drive_gain: Array
    rotation: tuple[tuple[Array, Array], ...]

    def pixels_first(self, n_sessions: int) -> Frames:
        """Reorders [B,K,H,W,C] to [K,S,H,W,b,C]: example i of B has session i % S."""

        def reorder(x: Array) -> Array:
            grouped = x.reshape(-1, n_sessions, *x.shape[1:])
            return jnp.moveaxis(grouped, (2, 1, 3, 4, 0), (0, 1, 2, 3, 4))

        return jax.tree.map(reorder, self)


class Weights(NamedTuple):
    """The parameters of the pass.

    Attributes:
      resting_amplitude: abar; of no use where amplitudes do not move.
      alphas: decay of the averages among the summaries, a frame.
      windows: pooling windows [S, N, h, w] of every level.
    """

    resting_amplitude: Float[Array, "L M"]
    alphas: dict[str, Array]
    windows: list[Array]


@dataclasses.dataclass(frozen=True)
class PassOptions:
    """How the pass runs; the fields are those of `PolarV1`."""

    dynamics: str
    recurrence: str
    start: str
    pose_floor: float
    summaries: tuple[str, ...]
    bias_correction: bool
    dtype: str


def pass_options(model: Any) -> PassOptions:
    """Returns the options of a `PolarV1`."""
    return PassOptions(
        **{field.name: getattr(model, field.name) for field in dataclasses.fields(PassOptions)}
    )


def motion(
    behavior: Behavior,
    constants: dict[str, Array],
    waves: Float[Array, "L M 2"],
    dt: float,
    *,
    pose_memory: bool,
) -> tuple:
    """Returns what the gaze does to amplitude and pose in every frame.

    Args:
      constants: lambda_fix and, where there is a gaze, lambda_sac, 1/s.
      waves: wave vectors k, cycles/pixel.
      dt: frame duration, s.

    Returns:
      Decay, decay of the pose and drive gain [B,T,1,1,1], and cos and sin [B,T,1,1,M] of the phase step of every level.
    """
    fixation = constants["lambda_fix"]
    rate = dynamics.relaxation_rate(behavior.saccade_gate, fixation, constants.get("lambda_sac", fixation))
    decay = jnp.exp(-rate * dt)
    drive_gain = fixation / rate * (1 - decay)
    angle = dynamics.phase_step(behavior.velocity, waves, behavior.gain, behavior.offset, dt=dt)
    angles = [angle[:, :, None, None, level] for level in range(angle.shape[2])]
    rotation = tuple((jnp.cos(part), jnp.sin(part)) for part in angles)
    pose_decay = decay if pose_memory else jnp.zeros_like(decay)
    return *(x[..., None, None, None] for x in (decay, pose_decay, drive_gain)), rotation


def empty_memory(maps: Float[Array, "S h w b M"], n_units: int, names: tuple[str, ...]) -> LevelMemory:
    """Returns the memory of a level before its first frame, given maps of zeros."""
    n_sessions, _, _, batch, pairs = maps.shape
    numbers = jnp.zeros((n_sessions * batch, n_units, pairs), maps.dtype)
    poses = ((maps, maps), (maps, maps)) if "energy" in names else ()
    return LevelMemory(maps, (maps, maps), poses, numbers, numbers, numbers)


def run_in_chunks(advance: Callable, start: Any, frames: Frames, frames_per_chunk: int) -> tuple[Any, Array]:
    """Runs `advance` over chunks of at most so many frames; activations of one chunk are kept at a time."""
    n_frames = frames.decay.shape[0]
    size = largest_divisor(n_frames, frames_per_chunk)
    if size == n_frames:
        return advance(start, frames)
    split = jax.tree.map(lambda x: x.reshape(n_frames // size, size, *x.shape[1:]), frames)
    end, pooled = jax.lax.scan(jax.checkpoint(advance, prevent_cse=False), start, split)
    return end, pooled.reshape(n_frames, *pooled.shape[2:])


def largest_divisor(n: int, limit: int) -> int:
    """Returns the largest divisor of n that is at most `limit`."""
    return next(size for size in range(min(n, max(limit, 1)), 0, -1) if n % size == 0)


def advance_chunk(
    options: PassOptions, weights: Weights, filters: Callable, carry: tuple, frames: Frames
) -> tuple[tuple, Float[Array, "K B N L D"]]:
    """Advances all levels by K frames.

    Args:
      filters: (level, images [K S, h, w, b, C]) -> even and odd responses.
      carry: number of frames seen before and the memories of the levels.

    Returns:
      The carry to go on with, and the pooled features.
    """
    n_seen, memories = carry
    n_frames = frames.decay.shape[0]
    age = n_seen + 1 + jnp.arange(n_frames)
    new_memories, features = [], []
    for level, image in enumerate(frames.levels):
        responses = filters(level, image.reshape(-1, *image.shape[2:]))
        even, odd = (x.reshape(*image.shape[:2], *x.shape[1:]) for x in responses)
        amplitude, *pose = decompose(even, odd, pose_floor=options.pose_floor)
        rest = weights.resting_amplitude[level]
        motion = (frames.decay, frames.pose_decay, frames.drive_gain, frames.rotation[level])
        state = evolve(options, rest, memories[level], n_seen == 0, (amplitude, tuple(pose)), motion)
        memory, summary = summarize(options, weights, level, memories[level], (n_seen == 0, age), state)
        new_memories.append(memory)
        features.append(summary)
    return (n_seen + n_frames, tuple(new_memories)), jnp.stack(features, axis=3)


def evolve(
    options: PassOptions,
    rest: Float[Array, "*M"],
    memory: LevelMemory,
    fresh: Array,
    observed: tuple,
    motion: tuple,
) -> tuple[Array, tuple, tuple]:
    """Moves amplitude and pose of a level by K frames.

    Args:
      rest: abar of the level, of a shape that broadcasts with the maps.
      fresh: whether nothing came before.
      observed: amplitude A and pose U of the frames.
      motion: decay, decay of the pose, drive gain and rotation of the frames.

    Returns:
      Amplitude a, raw pose z and unit pose u.
    """
    (amplitude, pose), (decay, pose_decay, drive_gain, turn) = observed, motion
    if options.dynamics == "none":
        return amplitude, pose, pose
    if options.dynamics == "framewise":
        relaxed = dynamics.relax_amplitude(amplitude, jnp.broadcast_to(rest, amplitude.shape), decay)
        turned = dynamics.rotate(*pose, *turn)
        return relaxed, turned, turned
    first = amplitude[0] if options.start == "drive" else jnp.broadcast_to(rest, amplitude.shape[1:])
    before = jnp.where(fresh, first, memory.amplitude)
    pose_before = (jnp.where(fresh, pose[0][0], memory.pose[0]), jnp.where(fresh, pose[1][0], memory.pose[1]))
    method = options.recurrence
    evolved = dynamics.evolve_amplitude(amplitude, before, rest, decay, drive_gain, method=method)
    moved = dynamics.evolve_pose(pose, pose_before, turn, pose_decay, method=method)
    return evolved, moved, safe_normalize(*moved)


def summarize(
    options: PassOptions, weights: Weights, level: int, memory: LevelMemory, time: tuple, state: tuple
) -> tuple[LevelMemory, Float[Array, "K B N D"]]:
    """Pools the maps of K frames of a level and averages over time what was pooled.

    Args:
      time: whether nothing came before, and the number of frames seen at each of the K.
      state: what `evolve` returns.
    """
    (fresh, age), (amplitude, raw_pose, _) = time, state
    maps, poses = maps_to_pool(options.summaries, memory.poses, fresh, state)
    pooled = {name: pool_maps(x, weights.windows[level], options.dtype) for name, x in maps.items()}
    averages = (memory.average_fast, memory.average_slow, memory.pooled)
    averages, features = average_over_time(
        options.summaries, options.bias_correction, weights.alphas, averages, (fresh, age), pooled
    )
    last_pose = (raw_pose[0][-1], raw_pose[1][-1])
    return LevelMemory(amplitude[-1], last_pose, poses, *averages), features


def pool_maps(maps: Float[Array, "K S h w b M"], window: Array, dtype: str) -> Float[Array, "K B N M"]:
    """Pools with each unit's window, in the compute dtype, and restores the order of the examples."""
    compute = maps.dtype if dtype == "float32" else jnp.dtype(dtype)
    pooled = pool(maps.astype(compute), window.astype(compute)).astype(maps.dtype)
    frames, sessions, units, batch, pairs = pooled.shape
    return jnp.moveaxis(pooled, 3, 1).reshape(frames, batch * sessions, units, pairs)
