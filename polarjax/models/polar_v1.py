"""Polar-V1: a movie and the gaze -> log spike rates, in one causal pass over the frames.

    levels   = laplacian_pyramid(stimulus)                       per frame
    A, U     = decompose(quadrature(levels))                     amplitude and pose of every pair
    a, u     = relaxation and rotation of (A, U) by the gaze     the memory
    features = summaries of a and u, pooled by each unit's Gaussian
    log rate = sum over levels of kernel . features + bias

Pooling is linear in space and the averages over time are linear in time, so they commute: each frame's maps are
pooled first and the running averages live on a few numbers a unit, never on maps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models.layers import Behavior, BehaviorHeads, GazeEncoder, QuadratureBank
from polarjax.models.readout import GaussianReadout, level_shapes
from polarjax.ops import dynamics, gaze as gaze_ops, summaries
from polarjax.ops.backend import stage
from polarjax.ops.gaussian_pooling import pool
from polarjax.ops.laplacian_pyramid import check_n_levels, laplacian_pyramid
from polarjax.ops.polar_decomposition import decompose, safe_normalize

LOG_RATE_FLOOR = 1e-6
UNIT_SOFTPLUS = float(np.log(np.expm1(1.0)))
AMPLITUDE_SUMMARIES = ("last", "fast", "slow", "derivative")
CHOICES = {
    "filters": ("dense", "separable"),
    "gaze": ("scaled", "raw", "none"),
    "dynamics": ("recurrent", "framewise", "none"),
    "recurrence": ("scan", "associative"),
    "start": ("drive", "rest"),
    "readout": ("shared", "per_level"),
    "link": ("softplus", "exp"),
    "dtype": ("float32", "bfloat16"),
}


class LevelMemory(NamedTuple):
    """What a level hands from frame to frame.

    Attributes:
      amplitude: a_{t-1}; maps are [S, h, w, B/S, M], so that a window times a map is one matrix product.
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
    gaze: gaze_ops.GazeMemory
    levels: tuple[LevelMemory, ...]


class PolarV1(nn.Module):
    """Gaze-conditioned model of V1 units of several sessions with one core.

    The defaults are ours; the reference's model is filters='separable', pyramid_normalized=False, gaze='raw',
    dynamics='framewise', max_velocity=50/(2 pi), retinal_slip=False, pose_floor=1e-6, the first five summaries,
    bias_correction=False, standardize=False, readout='per_level', link='exp'.

    Attributes:
      n_units: units of each of the S sessions.
      frame_shape: (H, W, C).
      dt: frame duration, s.
      pixels_per_degree: of the frames.
      initial_mean: S x N x 2 receptive field centres, degrees; () is the centre of the frame.
      initial_rate: S x N mean counts per bin; () is 1 (log rate 0).
      initial_width: standard deviation of the readout's Gaussians, degrees; None is a quarter of the frame.
      n_levels, n_pairs: L, M.
      kernel_size: k of the filters, odd.
      finest_stride: samples of the finest level are taken every 1 or 2 pixels.
      gaze: 'scaled' or 'raw' features (see `GazeEncoder`); 'none' for a model without gaze.
      retinal_slip: add the image motion that the gaze causes, -pixels_per_degree dg/dt, to the learned velocity.
      max_velocity: of the learned part, pixels/s.
      dynamics: 'recurrent' memory; 'framewise', the reference's update of each frame alone; 'none'.
      recurrence: 'scan', or 'associative' (same values, parallel in time within a chunk).
      frames_per_chunk: frames filtered and pooled at once; activations of one chunk are kept, the rest recomputed.
      start: amplitude memory before the first frame: 'rest' (abar) or 'drive' (the first frame's amplitude).
      fixation_rate, saccade_rate: initial lambda_fix, lambda_sac, 1/s.
      alpha_fast, alpha_slow: initial decay of the running averages a frame.
      summaries: which, in channel order.
      standardize: features relative to the mean and deviation they had on the first training batch.
      link: 'exp' (the readout is the log rate) or 'softplus' of the readout, in units of the unit's mean rate.
      dtype: of convolutions and pooling; parameters, dynamics and rates stay float32.

    Raises:
      ConfigError: an option outside its choices or a frame too small for the levels.

    Source: Polar-V1 (VisionCore), with the repairs named at each option.
    """

    n_units: tuple[int, ...]
    frame_shape: tuple[int, int, int]
    dt: float
    pixels_per_degree: float
    initial_mean: tuple = ()
    initial_rate: tuple = ()
    n_levels: int = 4
    n_pairs: int = 64
    kernel_size: int = 15
    finest_stride: int = 1
    filters: str = "dense"
    pyramid_normalized: bool = True
    pose_floor: float = 1e-3
    gaze: str = "scaled"
    code_width: int = 128
    retinal_slip: bool = True
    max_velocity: float = 50.0
    dynamics: str = "recurrent"
    recurrence: str = "scan"
    frames_per_chunk: int = 1
    start: str = "rest"
    base_frequency: float = 0.15
    fixation_rate: float = 10.0
    saccade_rate: float = 40.0
    alpha_fast: float = 0.74
    alpha_slow: float = 0.95
    summaries: tuple[str, ...] = summaries.NAMES
    bias_correction: bool = True
    standardize: bool = True
    readout: str = "shared"
    initial_width: float | None = None
    link: str = "softplus"
    dtype: str = "float32"

    def setup(self) -> None:
        """Creates all parameters from shapes."""
        self._check()
        self.bank_strides = tuple(self.finest_stride if level == 0 else 1 for level in range(self.n_levels))
        self.bank = QuadratureBank(
            self.filters,
            self.n_pairs,
            self.frame_shape[2],
            self.kernel_size,
            self.base_frequency,
            self.dtype,
            name="filters",
        )
        if self.uses_gaze:
            self.gaze_encoder = GazeEncoder(self.code_width, self.gaze == "scaled", self.dt)
            self.behavior_heads = BehaviorHeads(
                self.n_levels, self.n_pairs, self.code_width, self.max_velocity, self.gaze == "scaled"
            )
        constant = nn.initializers.constant
        if self.dynamics != "none":
            # lambda = start * softplus(raw)/softplus(0): positive, and a step of raw is a relative step of lambda
            self.rates = self.param(
                "rates", lambda _: {"log_fixation": jnp.zeros(()), "log_saccade": jnp.zeros(())}
            )
            self.resting_amplitude = self.param(
                "resting_amplitude", nn.initializers.zeros, (self.n_levels, self.n_pairs)
            )
        self.alphas = self.param(
            "alphas",
            lambda _: {
                name: constant(np.log(value / (1 - value)))(None, ())
                for name, value in (("fast_logit", self.alpha_fast), ("slow_logit", self.alpha_slow))
            },
        )
        self.units = self._make_readout()
        if self.standardize:
            shape = (self.n_levels, len(self.summaries) * self.n_pairs)
            self.feature_mean = self.variable("statistics", "mean", jnp.zeros, shape)
            self.feature_scale = self.variable("statistics", "scale", jnp.ones, shape)

    def _check(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ConfigError(
                    f"config.model.kwargs.{field} is {getattr(self, field)!r}; allowed are {', '.join(choices)}."
                )
        check_n_levels(*self.frame_shape[:2], self.n_levels)
        unknown = set(self.summaries) - set(summaries.NAMES)
        if unknown or not self.summaries:
            raise ConfigError(
                f"config.model.kwargs.summaries holds {sorted(unknown)}; allowed are {', '.join(summaries.NAMES)}."
            )

    def _make_readout(self) -> GaussianReadout:
        n_sessions, n_units = len(self.n_units), max(self.n_units)
        rate = np.asarray(self.initial_rate or np.ones((n_sessions, n_units)), np.float64)
        bias = np.log(rate) if self.link == "exp" else np.full_like(rate, UNIT_SOFTPLUS)
        mean = self.initial_mean or np.zeros((n_sessions, n_units, 2))
        quarter_frame = min(self.frame_shape[:2]) / self.pixels_per_degree / 4
        return GaussianReadout(
            self.readout,
            len(self.summaries) * self.n_pairs,
            self.level_strides,
            self.pixels_per_degree,
            _nested_tuple(mean),
            self.initial_width or quarter_frame,
            _nested_tuple(bias),
            name="readout",
        )

    @property
    def uses_gaze(self) -> bool:
        """Whether the rates depend on the gaze."""
        return self.gaze != "none" and self.dynamics != "none"

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Pixels of the frame between samples of every level."""
        return tuple(2**level * (self.finest_stride if level == 0 else 1) for level in range(self.n_levels))

    def time_constants(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """Returns lambda_fix and lambda_sac in 1/s and alpha_fast and alpha_slow a frame, from the parameters."""
        constants = {f"alpha_{name}": nn.sigmoid(params["alphas"][f"{name}_logit"]) for name in ("fast", "slow")}
        if "rates" in params:
            starts = {"fix": ("log_fixation", self.fixation_rate), "sac": ("log_saccade", self.saccade_rate)}
            for name, (raw, start) in starts.items():
                constants[f"lambda_{name}"] = start * nn.softplus(params["rates"][raw]) / np.log(2.0)
        return constants

    def _constants(self) -> dict[str, Array]:
        rates = {} if self.dynamics == "none" else {"rates": self.rates}
        return self.time_constants({"alphas": self.alphas, **rates})

    def __call__(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None = None
    ) -> tuple[Float[Array, "B N"], dict[str, Any]]:
        """Predicts the last frame of a window.

        Args:
          stimulus: (luminance - 127)/255, oldest first; example i belongs to session i % S.
          gaze: degrees, x right and y up; None only where `gaze` is 'none'.

        Returns:
          Log rates, log spikes/bin, and the intermediates of `advance` at all frames.
        """
        _, log_rate, intermediates = self.advance(stimulus, gaze, None)
        return log_rate[:, -1], intermediates

    def initial_memory(self, batch: int, frame_shape: tuple[int, int]) -> Memory:
        """Returns the memory before the first frame of movies of H x W pixels."""
        zero_gaze = jnp.zeros((batch, 1, 2))
        n_sessions, n_units, m = len(self.n_units), max(self.n_units), self.n_pairs
        levels = []
        for shape in level_shapes(frame_shape, self.level_strides):
            maps = jnp.zeros((n_sessions, *shape, batch // n_sessions, m), self.units.kernel.dtype)
            numbers = jnp.zeros((batch, n_units, m), maps.dtype)
            poses = ((maps, maps), (maps, maps)) if "energy" in self.summaries else ()
            levels.append(LevelMemory(maps, (maps, maps), poses, numbers, numbers, numbers))
        return Memory(jnp.zeros((), jnp.int32), gaze_ops.initial_memory(zero_gaze), tuple(levels))

    def advance(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, memory: Memory | None
    ) -> tuple[Memory, Float[Array, "B T N"], dict[str, Any]]:
        """Predicts every frame of a movie from the memory of what came before (None: nothing came before).

        Returns:
          The memory to go on with, log rates, and {'behavior': .., 'pooled': features [B,T,N,L,D]}.

        Raises:
          ConfigError: the model needs gaze and there is none.
        """
        dtype = jnp.promote_types(stimulus.dtype, self.units.kernel.dtype)
        batch, n_frames, *frame_shape = stimulus.shape[:4]
        frame_shape = tuple(frame_shape)
        memory = self.initial_memory(batch, frame_shape) if memory is None else memory
        decay, drive_gain, rotation, behavior, gaze_memory = self._behave(gaze, memory, (batch, n_frames), dtype)
        levels = laplacian_pyramid(stimulus.astype(dtype), self.n_levels, normalized=self.pyramid_normalized)
        frames = jax.tree.map(self._pixels_first, (levels, decay, drive_gain, rotation))
        windows = self.units.windows(frame_shape)
        chunk = functools.partial(self._chunk, windows)
        size = largest_divisor(n_frames, self.frames_per_chunk)
        if size == n_frames:
            carry, pooled = chunk((memory.n_seen, memory.levels), frames)
        else:
            split = jax.tree.map(lambda x: x.reshape(n_frames // size, size, *x.shape[1:]), frames)
            carry, pooled = jax.lax.scan(
                jax.checkpoint(chunk, prevent_cse=False), (memory.n_seen, memory.levels), split
            )
            pooled = pooled.reshape(n_frames, *pooled.shape[2:])
        log_rate = jnp.moveaxis(self._rate(pooled), 0, 1)
        intermediates = {"behavior": behavior, "pooled": jnp.moveaxis(pooled, 0, 1)}
        return Memory(carry[0], gaze_memory, carry[1]), log_rate, intermediates

    def _pixels_first(self, x: Array) -> Array:
        """Reorders [B,T,H,W,C] to [T,S,H,W,b,C]: example i of B has session i % S."""
        grouped = x.reshape(-1, len(self.n_units), *x.shape[1:])
        return jnp.moveaxis(grouped, (2, 1, 3, 4, 0), (0, 1, 2, 3, 4))

    def _behave(self, gaze: Array | None, memory: Memory, shape: tuple[int, int], dtype: Any) -> tuple:
        """Returns decay and drive gain [B,T,1,1,1], cos and sin of the rotation a level, heads, gaze memory."""
        batch, n_frames = shape
        if self.dynamics == "none":
            ones = jnp.ones((batch, n_frames, 1, 1, 1), dtype)
            return ones, ones, ((ones, 0 * ones),) * self.n_levels, None, memory.gaze
        if self.uses_gaze:
            behavior, gaze_memory = self._read_gaze(gaze, memory, dtype)
        else:
            maps = jnp.zeros((batch, n_frames, self.n_levels, self.n_pairs), dtype)
            behavior = Behavior(maps[..., 0, 0], jnp.zeros((batch, n_frames, 2), dtype), maps + 1, maps)
            gaze_memory = memory.gaze
        constants = self._constants()
        rate = dynamics.relaxation_rate(behavior.saccade_gate, constants["lambda_fix"], constants["lambda_sac"])
        decay = jnp.exp(-rate * self.dt)
        drive_gain = constants["lambda_fix"] / rate * (1 - decay)
        waves = jnp.asarray(dynamics.wave_vectors(self.n_levels, self.n_pairs, self.base_frequency), dtype)
        angle = dynamics.phase_step(behavior.velocity, waves, behavior.gain, behavior.offset, dt=self.dt)
        angles = [angle[:, :, None, None, level] for level in range(self.n_levels)]
        rotation = tuple((jnp.cos(part), jnp.sin(part)) for part in angles)
        decay, drive_gain = (x[..., None, None, None] for x in (decay, drive_gain))
        return decay, drive_gain, rotation, behavior, gaze_memory

    def _read_gaze(self, gaze: Array | None, memory: Memory, dtype: Any) -> tuple[Behavior, Any]:
        if gaze is None:
            raise ConfigError(
                f"This model needs the gaze trace [B, T, 2] in degrees (config.model.kwargs.gaze is {self.gaze!r}), "
                "got none. Pass gaze, or train with config.model.kwargs.gaze='none'."
            )
        gaze = gaze.astype(dtype)
        fresh = memory.n_seen == 0
        start = jax.tree.map(
            lambda first, carried: jnp.where(fresh, first, carried.astype(first.dtype)),
            gaze_ops.initial_memory(gaze),
            memory.gaze,
        )
        code, gaze_memory = self.gaze_encoder(gaze, start)
        behavior = self.behavior_heads(code)
        if self.retinal_slip:
            velocity = gaze_ops.kinematics(gaze, start, dt=self.dt).velocity
            # y of the gaze points up, rows of the frame go down; the image moves against the eye
            slip = velocity * jnp.asarray([-1.0, 1.0], dtype)[None, None] * self.pixels_per_degree
            behavior = behavior._replace(velocity=behavior.velocity + slip)
        return behavior, gaze_memory

    def _chunk(self, windows: list[Array], carry: tuple, frames: tuple) -> tuple[tuple, Array]:
        """Advances all levels by K frames; returns the memory and pooled features [K,B,N,L,D]."""
        n_seen, memories = carry
        levels, decay, drive_gain, rotation = frames
        n_frames = decay.shape[0]
        age = n_seen + 1 + jnp.arange(n_frames)
        new_memories, features = [], []
        for level, image in enumerate(levels):
            flat = image.reshape(-1, *image.shape[2:])
            responses = self.bank(flat, stride=self.bank_strides[level])
            even, odd = stage([x.reshape(*image.shape[:2], *x.shape[1:]) for x in responses])
            amplitude, *pose = stage(decompose(even, odd, pose_floor=self.pose_floor))
            state = self._evolve(
                level, memories[level], n_seen == 0, (amplitude, tuple(pose)), (decay, drive_gain, rotation[level])
            )
            memory, summary = self._summarize(memories[level], n_seen == 0, age, stage(state), windows[level])
            new_memories.append(memory)
            features.append(summary)
        return (n_seen + n_frames, tuple(new_memories)), jnp.stack(features, axis=3)

    def _evolve(
        self, level: int, memory: LevelMemory, fresh: Array, observed: tuple, motion: tuple
    ) -> tuple[Array, tuple, tuple]:
        """Returns amplitude a, raw pose z and unit pose u, [K,S,h,w,b,M] each."""
        (amplitude, pose), (decay, drive_gain, turn) = observed, motion
        if self.dynamics == "none":
            return amplitude, pose, pose
        rest = self.resting_amplitude[level]
        if self.dynamics == "framewise":
            relaxed = dynamics.relax_amplitude(amplitude, jnp.broadcast_to(rest, amplitude.shape), decay)
            turned = dynamics.rotate(*pose, *turn)
            return relaxed, turned, turned
        first = amplitude[0] if self.start == "drive" else jnp.broadcast_to(rest, amplitude.shape[1:])
        before = jnp.where(fresh, first, memory.amplitude)
        pose_before = tuple(jnp.where(fresh, now[0], past) for now, past in zip(pose, memory.pose, strict=True))
        evolved = dynamics.evolve_amplitude(amplitude, before, rest, decay, drive_gain, method=self.recurrence)
        moved = dynamics.evolve_pose(pose, pose_before, turn, decay, method=self.recurrence)
        return evolved, moved, safe_normalize(*moved)

    def _summarize(
        self, memory: LevelMemory, fresh: Array, age: Array, state: tuple, window: Array
    ) -> tuple[LevelMemory, Float[Array, "K B N D"]]:
        """Pools the maps of K frames and averages over time what was pooled."""
        amplitude, raw_pose, pose = state
        maps, poses = {"even": amplitude * pose[0], "odd": amplitude * pose[1]}, memory.poses
        if "energy" in self.summaries:
            past = jax.tree.map(lambda new, old: jnp.where(fresh, new[0], old), (pose, pose), poses)
            history = [jnp.concatenate([past[1][i][None], past[0][i][None], pose[i]]) for i in range(2)]
            maps["energy"] = summaries.pose_energy(pose, (history[0][:-2], history[1][:-2]))
            poses = tuple(tuple(part[-1 - back] for part in history) for back in range(2))
        parts = {name: self._pool(x, window) for name, x in maps.items() if name in self.summaries}
        fast, slow, newest = memory.average_fast, memory.average_slow, memory.pooled
        if set(self.summaries) & set(AMPLITUDE_SUMMARIES):
            constants, last = self._constants(), self._pool(amplitude, window)
            before = jnp.concatenate([jnp.where(fresh, last[0], newest)[None], last[:-1]])
            parts |= {"last": last, "derivative": last - before}
            parts["fast"], fast = self._average(last, fast, constants["alpha_fast"], age)
            parts["slow"], slow = self._average(last, slow, constants["alpha_slow"], age)
            newest = last[-1]
        features = jnp.concatenate([parts[name] for name in self.summaries], axis=-1)
        last_pose = (raw_pose[0][-1], raw_pose[1][-1])
        return LevelMemory(amplitude[-1], last_pose, poses, fast, slow, newest), features

    def _pool(self, maps: Float[Array, "K S h w b M"], window: Array) -> Float[Array, "K B N M"]:
        """Pools with each unit's window, in the compute dtype, and restores the order of the examples."""
        dtype = maps.dtype if self.dtype == "float32" else jnp.dtype(self.dtype)
        pooled = pool(maps.astype(dtype), window.astype(dtype)).astype(maps.dtype)
        frames, sessions, units, batch, pairs = pooled.shape
        return jnp.moveaxis(pooled, 3, 1).reshape(frames, batch * sessions, units, pairs)

    def _average(self, x: Array, start: Array, alpha: Array, age: Array) -> tuple[Array, Array]:
        """Returns the running average at K frames, corrected for its start from 0 where asked, and its raw end."""
        if x.shape[0] == 1:
            raw = (alpha * start + (1 - alpha) * x[0])[None]
        else:
            raw = dynamics.linear_recurrence(jnp.broadcast_to(alpha, (x.shape[0], 1, 1, 1)), (1 - alpha) * x, start)
        if not self.bias_correction:
            return raw, raw[-1]
        return raw / summaries.ema_bias(alpha, age.astype(x.dtype))[:, None, None, None], raw[-1]

    def _rate(self, pooled: Float[Array, "T B N L D"]) -> Float[Array, "T B N"]:
        if self.standardize:
            mean, scale = self.feature_mean.value, self.feature_scale.value
            pooled = (pooled - mean[None, None, None]) / scale[None, None, None]
        drive = self.units.mix(pooled)
        return drive if self.link == "exp" else softplus_log_rate(drive, self.initial_rate)


def softplus_log_rate(drive: Float[Array, "T B N"], mean_rate: tuple) -> Float[Array, "T B N"]:
    """Returns the log of r = rbar softplus(drive), so that the drive of every unit is in units of its mean rate.

    A softplus of counts per bin would be an exponential at the 0.1 spikes/bin of real units.

    Args:
      mean_rate: rbar, S x N spikes/bin; () is 1. Example i of B has session i % S.
    """
    rate = nn.softplus(drive)
    if mean_rate:
        scale = jnp.asarray(mean_rate, drive.dtype)
        rate = rate * jnp.tile(scale, (drive.shape[1] // scale.shape[0], 1))[None]
    return jnp.log(rate + LOG_RATE_FLOOR)


def largest_divisor(n: int, limit: int) -> int:
    """Returns the largest divisor of n that is at most `limit`."""
    return next(size for size in range(min(n, max(limit, 1)), 0, -1) if n % size == 0)


def _nested_tuple(values: Any) -> Any:
    """Turns nested sequences into tuples, so that a module with them as attributes can be hashed."""
    return tuple(_nested_tuple(value) for value in values) if np.ndim(values) else float(values)
