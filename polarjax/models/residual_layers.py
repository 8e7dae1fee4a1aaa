"""Layers of the residual network with a convolutional GRU."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.causal_convolution import convolve_frames
from polarjax.ops.conv_gru import RecurrentWeights, conv_gru, conv_gru_drive
from polarjax.ops.normalization import rms_norm
from polarjax.ops.products import project
from polarjax.ops.soft_pooling import binomial_blur, soft_pool, squeeze_excite

TAPS = 3
GATES = 3


class Pace(NamedTuple):
    """How a stage goes through time and what is beyond the border of its maps.

    Attributes:
      dilation: frames between its taps, for each of its own dilation.
      main, shortcut: frames between outputs of the two paths.
      padding: pixels beyond the border; None lines outputs up with pixels.
    """

    dilation: int = 1
    main: int = 1
    shortcut: int = 1
    padding: int | None = None


class ResidualStage(nn.Module):
    """Convolution, RMS norm, SiLU, dropout and pooling, plus a 1 x 1 shortcut; no activation after the sum.

    Attributes:
      n_inputs, n_channels: C and O.
      kernel_size: k, odd; there are 3 taps in time.
      dilation: of pixels and of frames.
      stride: pixels between samples of the convolution.
      pool: stride of the pooling; 0 pools nothing.
      reduction: the pooling's gate squeezes O channels to O / reduction.
      dropout: rate at which values are dropped where a 'dropout' key is given.
    """

    n_inputs: int
    n_channels: int
    kernel_size: int
    dilation: int
    stride: int
    pool: int
    reduction: int
    dropout: float

    def setup(self) -> None:
        """Creates the parameters."""
        size, inputs, outputs = self.kernel_size, self.n_inputs, self.n_channels
        self.convolution = self.param("convolution", _kernel(2.0, (TAPS, size, size, inputs, outputs)))
        self.norm = self.param("norm", _scale_and_shift(outputs))
        self.shortcut = self.param("shortcut", _kernel(1.0, (inputs, outputs)))
        self.drop = nn.Dropout(self.dropout)
        if self.pool:
            squeezed = max(outputs // self.reduction, 1)
            self.squeeze = self.param("squeeze", _kernel(1.0, (outputs, squeezed), squeezed))
            self.excite = self.param("excite", _kernel(1.0, (squeezed, outputs), outputs))

    @property
    def total_stride(self) -> int:
        """Pixels, and frames, of the input between samples of the output."""
        return self.stride * max(self.pool, 1)

    @property
    def memory(self) -> int:
        """Frames before the newest that a frame of the output depends on, without strides."""
        return (TAPS - 1) * self.dilation

    def map_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Returns (h, w) of the output for input of (H, W)."""
        height, width = (-(-side // self.stride) for side in shape)
        if not self.pool:
            return height, width
        return (height - 2) // self.pool + 1, (width - 2) // self.pool + 1

    def __call__(self, x: Float[Array, "H W B T C"], pace: Pace) -> Float[Array, "h w B t O"]:
        """Returns the features at the frames after the first `memory` x pace.dilation, which are context."""
        time, space = (self.dilation * pace.dilation, pace.main), (self.dilation, self.stride)
        main = convolve_frames(x, self.convolution["kernel"], time=time, space=space, padding=pace.padding)
        main = nn.silu(rms_norm(main, self.norm["scale"], self.norm["shift"]))
        main = self.drop(main, deterministic=not self.has_rng("dropout"))
        if self.pool:
            main = soft_pool(binomial_blur(main), stride=self.pool)
            main = squeeze_excite(
                main, *((part["kernel"], part["bias"]) for part in (self.squeeze, self.excite))
            )
        s = self.total_stride
        kept = x[::s, ::s, :, self.memory * pace.dilation :: pace.shortcut]
        shortcut = project(kept, self.shortcut["kernel"])
        return _crop(main, shortcut) + _crop(shortcut, main)


class RecurrentLayer(nn.Module):
    """Convolutional GRU with a learned start, and the projection of what units read from it.

    Attributes:
      n_inputs: C.
      n_hidden: D.
      kernel_size: k, odd.
    """

    n_inputs: int
    n_hidden: int
    kernel_size: int = 3

    def setup(self) -> None:
        """Creates the parameters."""
        size, gates = self.kernel_size, GATES * self.n_hidden
        self.input = self.param("input", _kernel(1.0, (size, size, self.n_inputs, gates), gates))
        self.recurrent = self.param("recurrent", _kernel(1.0, (size, size, self.n_hidden, gates)))
        self.norm = self.param("norm", _scale_and_shift(gates))
        self.start = self.param("start", nn.initializers.zeros, (self.n_hidden,))
        self.projection = self.param("projection", _kernel(1.0, (self.n_hidden,) * 2, self.n_hidden))

    def initial(self, shape: tuple[int, ...], batch: int, lag: int) -> Float[Array, "H W B s D"]:
        """Returns the states before the first frames of s interleaved sequences."""
        return jnp.broadcast_to(self.start.reshape(1, 1, 1, 1, -1), (*shape, batch, lag, self.n_hidden))

    def __call__(
        self, x: Float[Array, "H W B T C"], start: Float[Array, "H W B s D"], runs: Array | None = None
    ) -> Float[Array, "H W B T D"]:
        """Returns the states at all frames; see `conv_gru`."""
        drive = conv_gru_drive(x, self.input["kernel"], self.input["bias"])
        weights = RecurrentWeights(self.recurrent["kernel"], self.norm["scale"], self.norm["shift"])
        return conv_gru(start, drive, weights, runs)

    def project(self, pooled: Float[Array, "*K D"]) -> Float[Array, "*K D"]:
        """Mixes the channels of pooled states: windows sum to 1, so it is the same as before pooling."""
        bias = self.projection["bias"].reshape((1,) * (pooled.ndim - 1) + (-1,))
        return project(pooled, self.projection["kernel"]) + bias


def _kernel(gain: float, shape: tuple[int, ...], n_bias: int | None = None):
    def init(rng: Array) -> dict[str, Array]:
        kernel = {"kernel": nn.initializers.variance_scaling(gain, "fan_in", "normal")(rng, shape)}
        return kernel if n_bias is None else kernel | {"bias": jnp.zeros(n_bias)}

    return init


def _scale_and_shift(size: int):
    return lambda _: {"scale": jnp.ones(size), "shift": jnp.zeros(size)}


def _crop(x: Array, like: Array) -> Array:
    """Keeps the pixels in the middle and the last frames, where `like` has fewer."""
    height, width, _, frames, _ = (min(pair) for pair in zip(x.shape, like.shape, strict=True))
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    return x[top : top + height, left : left + width, :, x.shape[3] - frames :]
