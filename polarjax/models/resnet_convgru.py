"""Residual network with a convolutional GRU: the baseline that Polar-V1 is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from polarjax.core import ConfigError
from polarjax.models.layers import GazeEncoder, start_gaze
from polarjax.models.readout import make_readout, mix, softplus_log_rate
from polarjax.models.residual_frames import begin_earlier, join_code, join_context, pixels_first
from polarjax.models.residual_layers import Pace, RecurrentLayer, ResidualStage
from polarjax.models.residual_options import FRONTEND_TAPS, check_options, first_pixel, reference_padding
from polarjax.ops import gaze as gaze_ops
from polarjax.ops.causal_convolution import filter_pixels, hold_first, temporal_filters
from polarjax.ops.gaussian_pooling import level_positions, pool


class Memory(NamedTuple):
    """What the rates of the next frames need of the frames before.

    Attributes:
      n_seen: frames so far.
      gaze: of the gaze code.
      frontend: frames that the frontend's filters still see; None without frontend.
      contexts: frames that the taps of every stage still see.
      hidden: states of the interleaved sequences at the last frames.
    """

    n_seen: Int[Array, ""]
    gaze: gaze_ops.GazeMemory
    frontend: Array | None
    contexts: tuple[Array, ...]
    hidden: Float[Array, "H W B s D"]


class ResnetConvGRU(nn.Module):
    """Residual stages in space and time, a convolutional GRU over frames, a Gaussian readout.

    The strides of the stages in time multiply to s, and the network of a window looks at every s-th frame. Here a
    segment wants the rate at every frame: the taps of later stages stand as far apart as the strides before them say,
    and s GRUs run interleaved. So the rate at frame t is that of the strided network on the window from the first
    frame of t's sequence to t, with the segment's first frame held before it.

    The reference's residual sums do not line up in time: its shortcut strides time by the pooling's stride and the
    main path does not, and the last frames are summed. Here both paths stride. `shortcut` = 'reference' does as the
    reference does, its border of 3 pixels and its last odd frame left out included, for single windows.

    Attributes:
      n_units, frame_shape, dt, pixels_per_degree, initial_mean, initial_rate, link, initial_width, zero_inflated: as in
        `PolarV1`.
      frontend_filters: F temporal filters of 16 taps for every pixel; 0 is no frontend.
      channels, kernel_sizes: of every stage; there are 3 taps in time.
      strides: of the convolutions of every stage in time and space.
      pools: stride of every stage's pooling in time and space; 0 is no pooling, and 1 pools neighbours.
      dilations: of every stage's taps in time and space.
      reductions: channels of a stage over those of its pooling's gate.
      hidden: D of the GRU.
      dropout: rate after stage 1; stage i has i times as much. Where no 'dropout' key is given, nothing is dropped.
      gaze: 'scaled' or 'raw' code of the gaze joins the input of the GRU, or 'none'.
      code_width: numbers of that code a frame.

    Source: VisionCore's res_small_gru and learned_res_small_gru_optimized.
    """

    n_units: tuple[int, ...]
    frame_shape: tuple[int, int, int]
    dt: float
    pixels_per_degree: float
    initial_mean: tuple = ()
    initial_rate: tuple = ()
    frontend_filters: int = 0
    channels: tuple[int, ...] = (128, 256)
    kernel_sizes: tuple[int, ...] = (9, 5)
    strides: tuple[int, ...] = (2, 1)
    pools: tuple[int, ...] = (0, 2)
    dilations: tuple[int, ...] = (1, 1)
    reductions: tuple[int, ...] = (1, 8)
    hidden: int = 128
    dropout: float = 0.0
    gaze: str = "scaled"
    code_width: int = 32
    shortcut: str = "aligned"
    initial_width: float | None = None
    link: str = "softplus"
    zero_inflated: bool = False

    def setup(self) -> None:
        """Creates all parameters from shapes."""
        check_options(self)
        inputs = self.frame_shape[2]
        if self.frontend_filters:
            self.frontend = self.param("frontend", self._start_frontend)
            inputs *= self.frontend_filters
        n_inputs = (inputs, *self.channels[:-1])
        self.stages = [
            ResidualStage(
                n_inputs[i],
                self.channels[i],
                self.kernel_sizes[i],
                self.dilations[i],
                self.strides[i],
                self.pools[i],
                self.reductions[i],
                self.dropout * i,
                name=f"stage_{i}",
            )
            for i in range(len(self.channels))
        ]
        if self.uses_gaze:
            self.gaze_encoder = GazeEncoder(self.code_width, self.gaze == "scaled", self.dt)
        n_coded = self.code_width if self.uses_gaze else 0
        self.gru = RecurrentLayer(self.channels[-1] + n_coded, self.hidden)
        self.units = make_readout(self, "shared", self.hidden, (self.stride,))

    def _start_frontend(self, rng: Array) -> dict[str, Array]:
        noise = jax.random.normal(rng, (FRONTEND_TAPS, self.frontend_filters))
        return {"kernel": temporal_filters(noise)}

    @property
    def uses_gaze(self) -> bool:
        """Whether the rates depend on the gaze."""
        return self.gaze != "none"

    @property
    def stride(self) -> int:
        """Frames between those of a sequence of the GRU, and pixels between samples of its maps."""
        return math.prod(
            stride * max(pooling, 1) for stride, pooling in zip(self.strides, self.pools, strict=True)
        )

    @property
    def first_frame(self) -> int:
        """The first frame with a rate: before it the frontend has not seen as many frames as it has taps."""
        return FRONTEND_TAPS - 1 if self.frontend_filters else 0

    def time_constants(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """The model has none."""
        return {}

    def __call__(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None = None
    ) -> tuple[Float[Array, "B N"], dict[str, Any]]:
        """Predicts the last frame of a window; see `PolarV1`."""
        log_rate, intermediates = self.predict(stimulus, gaze, 1)
        return log_rate[:, -1], intermediates

    def predict(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, n_predicted: int
    ) -> tuple[Float[Array, "B n N"], dict[str, Any]]:
        """Predicts the last n frames of segments that nothing came before; see `PolarV1`.

        Raises:
          ConfigError: the model needs gaze and there is none, or there are too few frames before the first predicted.
        """
        if self.is_initializing():
            # the engine makes parameters from a single frame
            stimulus = begin_earlier(stimulus, self.first_frame)
            gaze = None if gaze is None else begin_earlier(gaze, self.first_frame)
        self._check_frames(stimulus.shape[1], n_predicted)
        memory = gaze_ops.initial_memory(jnp.zeros((len(stimulus), 1, 2)) if gaze is None else gaze)
        code, _ = self._code(gaze, memory, jnp.zeros((), jnp.int32))
        if n_predicted == 1:
            return self.predict_window(stimulus, code)
        x = self._filter(pixels_first(stimulus))
        for stage, pace in zip(self.stages, self._segment_paces(), strict=True):
            x = stage(hold_first(x, stage.memory * pace.dilation), pace)
        code = None if code is None else code[:, self.first_frame :]
        start = self.gru.initial(x.shape[:2], x.shape[2], self.stride)
        return self._rate(self.gru(join_code(x, code), start)[:, :, :, -n_predicted:])

    def predict_window(
        self, stimulus: Float[Array, "B T H W C"], code: Float[Array, "B T D"] | None
    ) -> tuple[Float[Array, "B 1 N"], dict[str, Any]]:
        """Predicts the last frame of windows, and computes only what it needs.

        Args:
          code: of the gaze; None without. The reference has one for a window: that of the last frame.
        """
        x = self._filter(pixels_first(stimulus))
        exact = self.shortcut == "aligned"
        # frames are added before the first, so that those of the strided network end at the last
        missing = (1 - x.shape[3]) % self.stride if exact else 0
        x = hold_first(x, missing)
        for i, stage in enumerate(self.stages):
            own, padding = (stage.total_stride, None) if exact else (stage.stride, reference_padding(i))
            x = stage(hold_first(x, stage.memory), Pace(1, own, stage.total_stride, padding))
        x = x[:, :, :, min(missing, 1) :]
        if code is not None:
            first = code.shape[1] - 1 - (x.shape[3] - 1) * self.stride
            code = code[:, first :: self.stride] if exact else jnp.repeat(code[:, -1:], x.shape[3], axis=1)
        start = self.gru.initial(x.shape[:2], x.shape[2], 1)
        return self._rate(self.gru(join_code(x, code), start)[:, :, :, -1:])

    def initial_memory(self, batch: int, frame_shape: tuple[int, int]) -> Memory:
        """Returns the memory before the first frame of movies of H x W pixels."""
        dtype, shape, n_channels, contexts = self.units.kernel.dtype, frame_shape, self.frame_shape[2], []
        frames = [jnp.zeros((*shape, batch, self.first_frame, n_channels), dtype)]
        for stage, pace in zip(self.stages, self._segment_paces(), strict=True):
            contexts.append(jnp.zeros((*shape, batch, stage.memory * pace.dilation, stage.n_inputs), dtype))
            shape = stage.map_shape(shape)
        return Memory(
            jnp.zeros((), jnp.int32),
            gaze_ops.initial_memory(jnp.zeros((batch, 1, 2))),
            frames[0] if self.frontend_filters else None,
            tuple(contexts),
            self.gru.initial(shape, batch, self.stride),
        )

    def advance(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, memory: Memory | None
    ) -> tuple[Memory, Float[Array, "B T N"], dict[str, Any]]:
        """Predicts every frame of a movie from the memory of what came before (None: nothing came before).

        With a frontend the rates of the first 15 frames of a movie are those of states that have not moved.

        Raises:
          ConfigError: the model needs gaze and there is none, or it is one of windows alone.
        """
        self._check_moves("a movie piece by piece")
        batch, n_frames, *size, _ = stimulus.shape
        memory = self.initial_memory(batch, (size[0], size[1])) if memory is None else memory
        code, gaze_memory = self._code(gaze, memory.gaze, memory.n_seen)
        x, frames, contexts = pixels_first(stimulus), None, []
        if memory.frontend is not None:
            x = jnp.concatenate([memory.frontend, x], axis=3)
            x, frames = self._filter(x), x[:, :, :, n_frames:]
        for stage, pace, context in zip(self.stages, self._segment_paces(), memory.contexts, strict=True):
            joined = join_context(context, x, self.first_frame - memory.n_seen)
            contexts.append(joined[:, :, :, n_frames:])
            x = stage(joined, pace)
        runs = memory.n_seen + jnp.arange(n_frames) >= self.first_frame
        states = self.gru(join_code(x, code), memory.hidden, runs.astype(x.dtype))
        hidden = jnp.concatenate([memory.hidden, states], axis=3)[:, :, :, n_frames:]
        seen = memory.n_seen + n_frames
        return (Memory(seen, gaze_memory, frames, tuple(contexts), hidden), *self._rate(states))

    def _segment_paces(self) -> list[Pace]:
        strides = np.cumprod([1, *(stage.total_stride for stage in self.stages)])
        return [Pace(dilation=int(stride)) for stride in strides[:-1]]

    def _check_frames(self, n_frames: int, n_predicted: int) -> None:
        before = n_frames - n_predicted
        if before < self.first_frame:
            raise ConfigError(
                f"The frontend has {FRONTEND_TAPS} taps, so a segment must have at least {self.first_frame} frames "
                f"before the first that is predicted (config.data.burn_in), got {before}."
            )
        if n_predicted > 1:
            self._check_moves("config.data.predicted")

    def _check_moves(self, what: str) -> None:
        if self.shortcut == "reference":
            raise ConfigError(
                "With config.model.kwargs.shortcut 'reference' only the last frame of a window can be predicted, no "
                f"segment and no stream ({what}); 'aligned' predicts any."
            )

    def _filter(self, x: Float[Array, "H W B T C"]) -> Float[Array, "H W B t D"]:
        return filter_pixels(x, self.frontend["kernel"]) if self.frontend_filters else x

    def _code(
        self, gaze: Array | None, memory: gaze_ops.GazeMemory, n_seen: Array
    ) -> tuple[Array | None, Any]:
        if not self.uses_gaze:
            return None, memory
        return self.gaze_encoder(*start_gaze(gaze, memory, n_seen, self.gaze))

    def _rate(self, states: Float[Array, "H W B K D"]) -> tuple[Float[Array, "B K N"], dict[str, Any]]:
        height, width, batch, n_frames, _ = states.shape
        n_sessions = len(self.n_units)
        shape, size = (height, width), (self.frame_shape[0], self.frame_shape[1])
        if self.shortcut == "reference":  # its maps lie in the middle of the frame
            size = ((height - 1) * self.stride + 1, (width - 1) * self.stride + 1)
        first = 0.0 if self.shortcut == "reference" else first_pixel(self.strides, self.pools)
        places = level_positions(shape, size, self.stride, self.pixels_per_degree, first)
        split = states.reshape(height, width, batch // n_sessions, n_sessions, n_frames, -1)
        pooled = pool(jnp.transpose(split, (4, 3, 0, 1, 2, 5)), self.units.windows_on(*places))
        pooled = jnp.moveaxis(pooled, 3, 1).reshape(n_frames, batch, -1, 1, self.hidden)
        pooled = self.gru.project(pooled)
        drive = mix(pooled, *self.units.weights())
        log_rate = drive if self.link == "exp" else softplus_log_rate(drive, self.initial_rate)
        return jnp.moveaxis(log_rate, 0, 1), {"pooled": jnp.moveaxis(pooled, 0, 1)}
