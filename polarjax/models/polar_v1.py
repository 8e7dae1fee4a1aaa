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
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.models import causal_pass, impulse_pass, segment_pass, window_pass
from polarjax.models.causal_pass import Memory
from polarjax.models.constants import initial_alphas, initial_rates, time_constants
from polarjax.models.layers import Behavior, BehaviorHeads, GazeEncoder, QuadratureBank, rest, start_gaze
from polarjax.models.options import check_options
from polarjax.models.readout import level_shapes, make_readout, mix, softplus_log_rate
from polarjax.ops import dynamics, summaries
from polarjax.ops import gaze as gaze_ops
from polarjax.ops.laplacian_pyramid import laplacian_pyramid


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
      surround: every unit has a second, concentric Gaussian, so many times as wide; None for one alone.
      n_levels, n_pairs, kernel_size: L, M and k, odd, of the filters.
      finest_stride: samples of the finest level are taken every 1 or 2 pixels.
      gaze: 'scaled' or 'raw' features (`GazeEncoder`), or 'none'.
      saccade_gate: q of the relaxation: 'learned' from the gaze code, or 'speed', sigma(0.2 s/deg (speed - 20 deg/s)).
      gaze_gain: the gaze code scales the rate of each unit by exp(code . w); w = 0 at the start.
      normalization: the drive of each unit is divided by the contrast around it (`ContrastNormalization`).
      retinal_slip: add the image motion that the gaze causes, -pixels_per_degree dg/dt, to the learned velocity.
      max_velocity: of the learned part, pixels/s.
      dynamics: 'recurrent' memory; 'framewise', the reference's update of each frame alone; 'none'.
      pose_memory: the pose is remembered as the amplitude is ('recurrent'); False takes that of each frame.
      recurrence: 'scan', or 'associative' (the same, parallel in time within a chunk).
      frames_per_chunk: frames filtered and pooled at once; activations of one chunk are kept, the rest recomputed.
      start: amplitude memory before the first frame: 'rest' (abar) or 'drive' (the first frame's amplitude).
      fixation_rate, saccade_rate, alpha_fast, alpha_slow: initial lambdas, 1/s, and decays of the averages a frame.
      summaries: which, in channel order.
      standardize: features relative to the mean and deviation they had on the first training batch.
      link: 'exp' (the readout is the log rate) or 'softplus' of the readout, in units of the unit's mean rate.
      zero_inflated: units have a learned probability of silence; rates are those of bins that are not silent.
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
    saccade_gate: str = "learned"
    gaze_gain: bool = False
    normalization: bool = False
    retinal_slip: bool = True
    max_velocity: float = 50.0
    dynamics: str = "recurrent"
    pose_memory: bool = True
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
    surround: float | None = None
    link: str = "softplus"
    zero_inflated: bool = False
    dtype: str = "float32"

    def setup(self) -> None:
        """Creates all parameters from shapes."""
        check_options(self)
        self.bank_strides = tuple(self.finest_stride if level == 0 else 1 for level in range(self.n_levels))
        sizes = (self.n_pairs, self.frame_shape[2], self.kernel_size)
        self.bank = QuadratureBank(self.filters, *sizes, self.base_frequency, self.dtype, name="filters")
        if self.uses_gaze:
            self.gaze_encoder = GazeEncoder(self.code_width, self.gaze == "scaled", self.dt)
            heads = (self.n_levels, self.n_pairs, self.code_width, self.max_velocity)
            turns = self.pose_memory or self.dynamics == "framewise"
            self.behavior_heads = BehaviorHeads(
                *heads, self.gaze == "scaled", self.saccade_gate == "learned", turns
            )
        self._make_dynamics()
        n_features = len(self.summaries) * self.n_pairs
        self.units = make_readout(
            self,
            self.readout,
            n_features,
            self.level_strides,
            surround=self.surround,
            code_width=self.code_width if self.gaze_gain else 0,
            normalized=self.normalization,
        )
        if self.standardize:
            shape = (self.n_levels, self.units.n_windows * self.units.n_features)
            start = {"mean": jnp.zeros, "scale": jnp.ones}
            self.standard = [self.variable("statistics", name, make, shape) for name, make in start.items()]

    def _make_dynamics(self) -> None:
        if self.dynamics != "none":
            self.rates = self.param("rates", lambda _: initial_rates(self))
            self.resting_amplitude = self.param(
                "resting_amplitude", nn.initializers.zeros, (self.n_levels, self.n_pairs)
            )
        alphas = initial_alphas(self)
        self.alphas = self.param("alphas", lambda _: alphas) if alphas else {}

    @property
    def uses_gaze(self) -> bool:
        """Whether the rates depend on the gaze."""
        return self.gaze != "none" and self.dynamics != "none"

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Pixels of the frame between samples of every level."""
        return (self.finest_stride, *(2**level for level in range(1, self.n_levels)))

    def time_constants(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """Returns the constants in natural units; see `constants.time_constants`."""
        return time_constants(self, params)

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
          Log rates, log spikes/bin, and the intermediates of `advance` at the last frame.
        """
        log_rate, intermediates = self.predict(stimulus, gaze, 1)
        return log_rate[:, -1], intermediates

    def predict(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, n_predicted: int
    ) -> tuple[Float[Array, "B n N"], dict[str, Any]]:
        """Predicts the last n frames of segments that nothing came before; arguments and results as in `advance`."""
        if not segment_pass.computes(self, stimulus.shape[1] - n_predicted):
            _, log_rate, given = self.advance(stimulus, gaze, None)
            return log_rate[:, -n_predicted:], given | {"pooled": given["pooled"][:, -n_predicted:]}
        dtype = jnp.promote_types(stimulus.dtype, self.units.kernel.dtype)
        batch, n_frames, *size, _ = stimulus.shape
        nothing = self.initial_memory(batch, (size[0], size[1]))
        motion, behavior, _ = self._behave(gaze, nothing, (batch, n_frames), dtype)
        levels = laplacian_pyramid(stimulus.astype(dtype), self.n_levels, normalized=self.pyramid_normalized)
        options, weights = causal_pass.pass_options(self), self._weights((size[0], size[1]))
        given = (options, weights, self.bank, levels, self.bank_strides, motion)
        if n_predicted == 1:
            pool_windows = (window_pass if window_pass.computes(self) else impulse_pass).pool_windows
            pooled = self.units.by_unit(pool_windows(*given)[None])
            drive = mix(pooled, *self._readout_weights())
        else:
            readout = self._readout_weights()
            drive, pooled = segment_pass.drive_units(self.units, *readout, given, n_predicted)
        intermediates = {"behavior": behavior, "pooled": jnp.moveaxis(pooled, 0, 1)}
        return self._rate(drive, behavior, stimulus), intermediates

    def initial_memory(self, batch: int, frame_shape: tuple[int, int]) -> Memory:
        """Returns the memory before the first frame of movies of H x W pixels."""
        n_sessions, n_windows, levels = len(self.n_units), self.units.n_windows * max(self.n_units), []
        for shape in level_shapes(frame_shape, self.level_strides):
            maps = jnp.zeros((n_sessions, *shape, batch // n_sessions, self.n_pairs), self.units.kernel.dtype)
            levels.append(causal_pass.empty_memory(maps, n_windows, self.summaries))
        gaze = gaze_ops.initial_memory(jnp.zeros((batch, 1, 2)))
        return Memory(jnp.zeros((), jnp.int32), gaze, tuple(levels))

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
        batch, n_frames, height, width = stimulus.shape[:4]
        memory = self.initial_memory(batch, (height, width)) if memory is None else memory
        motion, behavior, gaze_memory = self._behave(gaze, memory, (batch, n_frames), dtype)
        levels = laplacian_pyramid(stimulus.astype(dtype), self.n_levels, normalized=self.pyramid_normalized)
        frames = causal_pass.Frames(levels, *motion).pixels_first(len(self.n_units))
        advance_chunk = functools.partial(
            causal_pass.advance_chunk,
            causal_pass.pass_options(self),
            self._weights((height, width)),
            self._filter,
        )
        start = (memory.n_seen, memory.levels)
        carry, pooled = causal_pass.run_in_chunks(advance_chunk, start, frames, self.frames_per_chunk)
        pooled = self.units.by_unit(pooled)
        log_rate = self._rate(mix(pooled, *self._readout_weights()), behavior, stimulus)
        intermediates = {"behavior": behavior, "pooled": jnp.moveaxis(pooled, 0, 1)}
        return Memory(carry[0], gaze_memory, carry[1]), log_rate, intermediates

    def _weights(self, frame_shape: tuple[int, int]) -> causal_pass.Weights:
        rest = jnp.zeros((self.n_levels, 1)) if self.dynamics == "none" else self.resting_amplitude
        return causal_pass.Weights(rest, self._constants(), self.units.windows(frame_shape))

    def _filter(self, level: int, images: Array) -> tuple[Array, Array]:
        return self.bank(images, stride=self.bank_strides[level])

    def _behave(self, gaze: Array | None, memory: Memory, shape: tuple[int, int], dtype: Any) -> tuple:
        """Returns (decay, drive gain, rotation) of every frame, the heads, the gaze memory."""
        batch, n_frames = shape
        if self.dynamics == "none":
            ones = jnp.ones((batch, n_frames, 1, 1, 1), dtype)
            return (ones, ones, ones, ((ones, 0 * ones),) * self.n_levels), None, memory.gaze
        if self.uses_gaze:
            behavior, gaze_memory = self._read_gaze(gaze, memory, dtype)
        else:
            behavior, gaze_memory = rest((*shape, self.n_levels, self.n_pairs), dtype), memory.gaze
        waves = jnp.asarray(dynamics.wave_vectors(self.n_levels, self.n_pairs, self.base_frequency), dtype)
        given = (behavior, self._constants(), waves, self.dt)
        return causal_pass.motion(*given, pose_memory=self.pose_memory), behavior, gaze_memory

    def _read_gaze(self, gaze: Array | None, memory: Memory, dtype: Any) -> tuple[Behavior, Any]:
        given = None if gaze is None else gaze.astype(dtype)
        gaze, start = start_gaze(given, memory.gaze, memory.n_seen, self.gaze)
        code, gaze_memory = self.gaze_encoder(gaze, start)
        motion, (threshold, sharpness) = gaze_ops.kinematics(gaze, start, dt=self.dt), gaze_ops.SACCADE_GATE
        gate = gaze_ops.saccade_gate(motion.speed, jnp.log(threshold), jnp.asarray(sharpness))
        behavior = self.behavior_heads(code, gate)
        if self.retinal_slip:
            slip = gaze_ops.retinal_slip(motion.velocity, self.pixels_per_degree)
            behavior = behavior._replace(velocity=behavior.velocity + slip)
        return behavior, gaze_memory

    def _readout_weights(self) -> tuple[Array, Array]:
        return self.units.weights(*(x.value for x in (self.standard if self.standardize else ())))

    def _rate(self, drive: Float[Array, "n B N"], behavior: Behavior | None, stimulus: Array) -> Array:
        n_scored, bias = len(drive), self._readout_weights()[1]
        drive = self.units.normalized_drive(drive, bias, stimulus[:, -n_scored:].astype(drive.dtype))
        log_rate = drive if self.link == "exp" else softplus_log_rate(drive, self.initial_rate)
        log_rate = jnp.moveaxis(log_rate, 0, 1)
        code = behavior.code if behavior and self.gaze_gain else None
        return log_rate if code is None else log_rate + self.units.log_gain(code[:, -n_scored:])
