"""Gaussian readouts of several sessions, stacked: every unit pools the maps at its place and mixes the channels."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.models.normalization import ContrastNormalization
from polarjax.models.silence import INITIAL_LOGIT
from polarjax.models.silence import NAME as SILENCE
from polarjax.ops.division import divide
from polarjax.ops.gaussian_pooling import correlated_gaussian, level_positions, normalized_gaussian

LOG_RATE_FLOOR = 1e-6
UNIT_SOFTPLUS = float(np.log(np.expm1(1.0)))


def nested(values: Any) -> Any:
    """Turns nested sequences into tuples, so that a module with them as attributes can be hashed."""
    return tuple(nested(value) for value in values) if np.ndim(values) else float(values)


def unit_drive(rate: np.ndarray) -> np.ndarray:
    """Returns the drive at which the softplus link gives every unit its mean rate."""
    return np.full_like(rate, UNIT_SOFTPLUS)


def make_readout(
    model: Any,
    kind: str,
    n_features: int,
    level_strides: tuple[int, ...],
    *,
    surround: float | None = None,
    code_width: int = 0,
    normalized: bool = False,
) -> GaussianReadout:
    """Makes the readout named 'readout' of a model with one core, for all its sessions.

    Args:
      model: with n_units, frame_shape, pixels_per_degree, initial_mean, initial_rate, initial_width, zero_inflated and
        link as in `PolarV1`. The first drives give every unit its initial rate; the first widths are a quarter of the
        frame where initial_width is None.
      kind, n_features, level_strides, surround, code_width, normalized: of `GaussianReadout`.
    """
    n_sessions, n_units = len(model.n_units), max(model.n_units)
    rate = np.asarray(model.initial_rate or np.ones((n_sessions, n_units)), np.float64)
    bias = np.log(rate) if model.link == "exp" else unit_drive(rate)
    mean = model.initial_mean or np.zeros((n_sessions, n_units, 2))
    width = model.initial_width or min(model.frame_shape[:2]) / model.pixels_per_degree / 4
    place = (model.pixels_per_degree, nested(mean), width, nested(bias))
    return GaussianReadout(
        kind,
        n_features,
        level_strides,
        *place,
        surround=surround,
        code_width=code_width,
        normalized=normalized,
        zero_inflated=model.zero_inflated,
        name="readout",
    )


def level_shapes(frame_shape: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns (h, w) of the maps of levels that keep every stride-th pixel of a frame."""
    return [(-(-frame_shape[0] // stride), -(-frame_shape[1] // stride)) for stride in strides]


class GaussianReadout(nn.Module):
    """Where each unit looks and how it weighs the features there.

    Units of shorter sessions are padded to N; what they predict is masked by the batch.

    Attributes:
      kind: 'shared', one normalised Gaussian a unit in degrees, the same at all levels (Lurz et al. 2021); or
        'per_level', the reference's own Gaussian for every level, not normalised.
      n_features: D a level and Gaussian.
      level_strides: pixels of the frame between samples of each of the L levels.
      initial_mean: S x N x 2, degrees from the centre of the frame ('shared').
      initial_width: standard deviation, degrees ('shared').
      surround: a second Gaussian around every unit's first is so many times as wide ('shared'); None for one alone.
      initial_bias: S x N.
      code_width: D' of a code whose weighted sum scales the rate of every unit; 0 for none.
      normalized: whether the drive is divided by the local contrast ('shared').
      zero_inflated: units have a learned silence; see `models.silence`.
    """

    kind: str
    n_features: int
    level_strides: tuple[int, ...]
    pixels_per_degree: float
    initial_mean: tuple
    initial_width: float
    initial_bias: tuple
    surround: float | None = None
    code_width: int = 0
    normalized: bool = False
    zero_inflated: bool = False

    @property
    def n_windows(self) -> int:
        """Gaussians a unit."""
        return 1 if self.surround is None else 2

    def setup(self) -> None:
        """Creates the parameters, [S, N, ..] each."""
        n_levels = len(self.level_strides)
        units = np.asarray(self.initial_bias).shape
        shared = self.kind == "shared"
        place = units if shared else (*units, n_levels)
        start = np.asarray(self.initial_mean, np.float32)
        self.mean = (
            self.param("mean", lambda _: jnp.asarray(start))
            if shared
            else self.param("mean", nn.initializers.normal(0.1), (*place, 2))
        )
        self.log_width = self.param(
            "log_width", nn.initializers.constant(np.log(self.initial_width if shared else 5.0)), (*place, 2)
        )
        self.tilt = self.param("angle" if shared else "correlation", nn.initializers.zeros, place)
        n_features = self.n_windows * self.n_features
        spread = 0.1 / np.sqrt(n_levels * n_features)
        self.kernel = self.param("kernel", nn.initializers.normal(spread), (*units, n_levels, n_features))
        self.bias = self.param("bias", lambda _: jnp.asarray(self.initial_bias, jnp.float32))
        if self.code_width:
            self.gain = self.param("gain", lambda _: {"kernel": jnp.zeros((*units, self.code_width))})
        if self.normalized:
            stride = self.level_strides[0]
            self.normalize = ContrastNormalization(
                units, 3 * self.initial_width, self.pixels_per_degree, stride
            )
        if self.zero_inflated:
            self.silence_logit = self.param(SILENCE, nn.initializers.constant(INITIAL_LOGIT), units)

    def windows(self, frame_shape: tuple[int, int]) -> list[Float[Array, "S W h w"]]:
        """Returns the pooling windows of every level of frames of H x W pixels: all units' first, then the second."""
        shapes = level_shapes(frame_shape, self.level_strides)
        if self.kind == "per_level":
            return [
                correlated_gaussian(self.mean[:, :, i], self.log_width[:, :, i], self.tilt[:, :, i], shape)
                for i, shape in enumerate(shapes)
            ]
        return [
            self.windows_on(*level_positions(shape, frame_shape, stride, self.pixels_per_degree))
            for shape, stride in zip(shapes, self.level_strides, strict=True)
        ]

    def windows_on(self, x: np.ndarray, y: np.ndarray) -> Float[Array, "S W h w"]:
        """Returns the pooling windows over samples at x [w] and y [h], degrees ('shared')."""
        positions = (jnp.asarray(x, self.mean.dtype), jnp.asarray(y, self.mean.dtype))
        widths = [self.log_width]
        if self.surround is not None:
            widths.append(self.log_width + np.log(self.surround))
        each = [normalized_gaussian(self.mean, width, self.tilt, positions) for width in widths]
        return jnp.concatenate(each, axis=1)

    def normalized_drive(
        self, drive: Float[Array, "n B N"], bias: Float[Array, "S N"], stimulus: Float[Array, "B n H W C"]
    ) -> Float[Array, "n B N"]:
        """Returns the drive, divided by the contrast of its frames where the readout is `normalized`."""
        return self.normalize(drive, bias, stimulus, self.mean) if self.normalized else drive

    def log_gain(self, code: Float[Array, "B n D"]) -> Float[Array, "B n N"]:
        """Returns what the code adds to the log rates."""
        return unit_gain(code, self.gain["kernel"])

    def by_unit(self, pooled: Float[Array, "K B W L D"]) -> Float[Array, "K B N L F"]:
        """Puts what a unit's windows pooled side by side: F = D a window."""
        frames, batch, _, n_levels, depth = pooled.shape
        split = pooled.reshape(frames, batch, self.n_windows, -1, n_levels, depth)
        return jnp.moveaxis(split, 2, 4).reshape(frames, batch, -1, n_levels, self.n_windows * depth)

    def weights(
        self, mean: Float[Array, "L F"] | None = None, scale: Float[Array, "L F"] | None = None
    ) -> tuple[Float[Array, "S N L F"], Float[Array, "S N"]]:
        """Returns the kernel and the bias of the features, or of features less `mean` and over `scale`."""
        if mean is None or scale is None:
            return self.kernel, self.bias
        kernel = divide(self.kernel, scale[None, None])
        return kernel, self.bias - (kernel * mean[None, None]).sum((-1, -2))

    def by_window(self, kernel: Float[Array, "S N L F"]) -> Float[Array, "S W L D"]:
        """Returns the kernel of the windows before `by_unit`; what the windows of a unit give adds up."""
        sessions, units, levels, _ = kernel.shape
        split = kernel.reshape(sessions, units, levels, self.n_windows, -1)
        return jnp.moveaxis(split, 3, 1).reshape(sessions, self.n_windows * units, levels, -1)

    def add_windows(self, weighed: Float[Array, "K B W"], bias: Float[Array, "S N"]) -> Float[Array, "K B N"]:
        """Adds what the windows of a unit gave, and the bias."""
        frames, batch, _ = weighed.shape
        drive = weighed.reshape(frames, batch, self.n_windows, -1).sum(2)
        return drive + jnp.tile(bias, (batch // len(bias), 1))[None]


def unit_gain(code: Float[Array, "B n D"], kernel: Float[Array, "S N D"]) -> Float[Array, "B n N"]:
    """Returns code . w of the units of each example's session (example i has session i % S)."""
    grouped = code.reshape(-1, len(kernel), *code.shape[1:])
    gain = jnp.einsum("bsnd,sud->bsnu", grouped, kernel, precision="highest")
    return gain.reshape(*code.shape[:2], kernel.shape[1])


def mix(
    pooled: Float[Array, "K B N L F"], kernel: Float[Array, "S N L F"], bias: Float[Array, "S N"]
) -> Float[Array, "K B N"]:
    """Weighs pooled features by the kernel of each example's session (example i has session i % S)."""
    n_sessions, n_units = bias.shape
    frames, batch = pooled.shape[:2]
    grouped = pooled.reshape(frames, batch // n_sessions, n_sessions, *pooled.shape[2:])
    mixed = jnp.einsum("kbsnld,snld->kbsn", grouped, kernel, precision="highest")
    return (mixed + bias[None, None]).reshape(frames, batch, n_units)


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
