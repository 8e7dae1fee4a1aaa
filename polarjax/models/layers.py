"""Layers of Polar-V1: quadrature filter bank, gaze encoder, behaviour heads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models.dense import Dense
from polarjax.ops import gaze as gaze_ops
from polarjax.ops.convolution import correlate, correlate_band, cut_rows
from polarjax.ops.products import mix_planes
from polarjax.ops.quadrature import dense_quadrature, gabor_pairs, separable_quadrature

MAX_PHASE_OFFSET = 0.1


class QuadratureBank(nn.Module):
    """Quadrature filters shared by all levels (Adelson & Bergen 1985).

    Attributes:
      kind: 'dense', M full-rank pairs that start as Gabors; or 'separable', the reference's bank: one spatial filter a
        channel, mixed 1x1 into M maps (rank 1 with one channel).
      kernel_size: k, odd.
      frequency: carrier of the initial Gabors, cycles/pixel of a level.
      dtype: of the convolutions; parameters and results keep their own.
    """

    kind: str
    n_pairs: int
    n_channels: int
    kernel_size: int
    frequency: float
    dtype: str

    def setup(self) -> None:
        """Creates the kernels."""
        k, c, m = self.kernel_size, self.n_channels, self.n_pairs
        if self.kind == "dense":
            even, odd = gabor_pairs(k, m, c, self.frequency)
            self.kernels: dict[str, Any] = {
                "even": self.param("even", lambda _: {"kernel": jnp.asarray(even, jnp.float32)}),
                "odd": self.param("odd", lambda _: {"kernel": jnp.asarray(odd, jnp.float32)}),
            }
        else:
            self.kernels = {name: self.param(name, self._separable) for name in ("even", "odd")}

    def _separable(self, rng: Array) -> dict[str, dict[str, Array]]:
        keys = jax.random.split(rng)
        spatial = nn.initializers.lecun_uniform()(
            keys[0], (self.kernel_size, self.kernel_size, 1, self.n_channels)
        )
        mixing = nn.initializers.lecun_uniform()(keys[1], (self.n_channels, self.n_pairs))
        return {"spatial": {"kernel": spatial}, "mixing": {"kernel": mixing, "bias": jnp.zeros(self.n_pairs)}}

    def __call__(self, x: Float[Array, "S H W *B C"], stride: int = 1) -> tuple[Array, Array]:
        """Returns the even and the odd responses [S, h, w, .., M]."""
        full = jnp.promote_types(x.dtype, jnp.float32)
        dtype = full if self.dtype == "float32" else jnp.dtype(self.dtype)
        x, kernels = x.astype(dtype), jax.tree.map(lambda leaf: leaf.astype(dtype), self.kernels)
        if self.kind == "dense":
            even, odd = dense_quadrature(
                x, kernels["even"]["kernel"], kernels["odd"]["kernel"], stride=stride
            )
        else:
            even, odd = (
                separable_quadrature(
                    x,
                    kernels[name]["spatial"]["kernel"],
                    kernels[name]["mixing"]["kernel"],
                    kernels[name]["mixing"]["bias"],
                    stride=stride,
                )
                for name in ("even", "odd")
            )
        return even.astype(full), odd.astype(full)

    def separate(self, x: Float[Array, "S H W *B C"], stride: int = 1) -> list[Array]:
        """Returns the even and the odd responses [S, h, w, .., C] of a separable bank before channels are mixed."""
        kernels = jnp.stack([self.kernels[name]["spatial"]["kernel"] for name in ("even", "odd")], axis=-1)
        both = correlate(x, kernels.reshape(*kernels.shape[:3], -1), stride=stride, groups=self.n_channels)
        return [both[..., 0::2], both[..., 1::2]]

    def band_grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns rows and columns that bands of maps are cut from: single pixels where mixing sees no other one."""
        return (height * width, 1) if self.kind == "separable" else (height, width)

    def in_bands(
        self, images: Float[Array, "B T H W C"], stride: int, rows: int, n_pixels: int
    ) -> tuple[Any, Any, Callable[[Any, Any], Array]]:
        """Cuts what the maps are computed from into bands of rows of `band_grid`.

        Args:
          n_pixels: p, at least the pixels of the rows; those beyond are of no meaning.

        Returns:
          Arrays [B, n, T, ..], n bands an example, the last filled up with zeros; filters; and the function of filters
          and one frame of a band that returns maps [2 M, p], the even ones first.
        """
        height, width = images.shape[2:4]
        if self.kind == "separable":
            even, odd = self.mixing()
            mixing = jax.scipy.linalg.block_diag(even, odd)
            maps = self.separate(images.reshape(-1, *images.shape[2:]), stride)
            maps = jnp.concatenate([part for x in maps for part in (x, jnp.ones_like(x[..., :1]))], axis=-1)
            movies = maps.reshape(*images.shape[:2], -1, 1, maps.shape[-1])
            count = -(-movies.shape[2] // rows)
            bands = jnp.moveaxis(cut_rows(movies, count=count, step=rows, height=rows), -1, 3)
            planes = bands.reshape(*bands.shape[:4], -1)
            missing = [(0, 0)] * 4 + [(0, n_pixels - planes.shape[-1])]
            return jnp.pad(planes, missing), mixing, mix_planes
        size, kernels = self.kernel_size, [self.kernels[name]["kernel"] for name in ("even", "odd")]
        count = -(-height // (stride * rows))
        before, after = size // 2, (-(-width // stride) - 1) * stride + size - size // 2 - width
        padded = jnp.pad(images, [(0, 0), (0, 0), (before, 0), (before, after), (0, 0)])
        bands = cut_rows(padded, count=count, step=rows * stride, height=(rows - 1) * stride + size)
        weights = jnp.concatenate([kernel.reshape(-1, self.n_pairs).T for kernel in kernels])

        return bands, weights, functools.partial(correlate_band, size, stride, n_pixels)

    def mixing(self) -> list[Float[Array, "c M"]]:
        """Returns what mixes channels into even and into odd maps, the bias as last row."""
        mixing = [self.kernels[name]["mixing"] for name in ("even", "odd")]
        return [jnp.concatenate([part["kernel"], part["bias"][None]]) for part in mixing]


class GazeEncoder(nn.Module):
    """Gaze trace -> code of D numbers a frame: features, then two Dense + exact GELU (Polar-V1).

    Attributes:
      width: D.
      scaled: asinh-scaled kinematics and a gate for microsaccades; False is the reference's raw features.
      dt: frame duration, s.
      n_frequencies: K Fourier features of position an axis.
    """

    width: int
    scaled: bool
    dt: float
    n_frequencies: int = 2

    @nn.compact
    def __call__(
        self, gaze: Float[Array, "B T 2"], memory: gaze_ops.GazeMemory
    ) -> tuple[Float[Array, "B T D"], gaze_ops.GazeMemory]:
        """Returns the code and the memory for the frames to come."""
        k = self.n_frequencies
        # The reference starts all frequencies equal, so they stay equal; octaves apart they can specialise.
        frequencies = np.log((0.5 ** np.arange(k)) if self.scaled else np.full(k, 1 / 64))
        threshold, sharpness = gaze_ops.SACCADE_GATE if self.scaled else (200.0, 0.05)

        def features_of(position: Array, axis: str) -> Array:
            start = jnp.asarray(frequencies, jnp.float32)
            frequency = self.param(f"log_frequency_{axis}", lambda _: start)
            phase = self.param(f"phase_{axis}", nn.initializers.zeros, (k,))
            return gaze_ops.position_features(position, frequency, phase)

        positions = (features_of(gaze[..., 0], "x"), features_of(gaze[..., 1], "y"))
        gate = (
            self.param("log_threshold", nn.initializers.constant(np.log(threshold)), ()),
            self.param("sharpness", nn.initializers.constant(sharpness), ()),
        )
        features, memory = gaze_ops.gaze_features(
            gaze, memory, positions, gate, dt=self.dt, scaled=self.scaled
        )
        hidden = nn.gelu(Dense(self.width, name="hidden")(features), approximate=False)
        return nn.gelu(Dense(self.width, name="code")(hidden), approximate=False), memory


def start_gaze(
    gaze: Float[Array, "B T 2"] | None, memory: gaze_ops.GazeMemory, n_seen: Array, kind: str
) -> tuple[Float[Array, "B T 2"], gaze_ops.GazeMemory]:
    """Returns the gaze, and what its code goes on from: the memory, or the first frame where nothing was seen.

    Raises:
      ConfigError: there is no gaze.
    """
    if gaze is None:
        raise ConfigError(
            f"This model needs the gaze trace [B, T, 2] in degrees (config.model.kwargs.gaze is {kind!r}), got none. "
            "Pass gaze, or train with config.model.kwargs.gaze='none'."
        )

    def begun(first: Array, carried: Array) -> Array:
        return jnp.where(n_seen == 0, first, carried.astype(first.dtype))

    return gaze, jax.tree.map(begun, gaze_ops.initial_memory(gaze), memory)


class Behavior(NamedTuple):
    """What the gaze does to the code of the image.

    Attributes:
      saccade_gate: q, probability of a saccade, in (0, 1).
      velocity: of the image on the retina, pixels/s, x right and y down.
      gain: gamma of the phase step, at least 1.
      offset: rho of the phase step, rad, in (-0.1, 0.1).
      code: of the gaze, D numbers; None for a model without gaze.
    """

    saccade_gate: Float[Array, "B T"]
    velocity: Float[Array, "B T 2"]
    gain: Float[Array, "B T L M"]
    offset: Float[Array, "B T L M"]
    code: Float[Array, "B T D"] | None = None


def rest(shape: tuple[int, int, int, int], dtype: Any) -> Behavior:
    """Returns an eye at rest for maps [B, T, L, M]: no saccade and no motion."""
    maps = jnp.zeros(shape, dtype)
    return Behavior(maps[..., 0, 0], jnp.zeros((*shape[:2], 2), dtype), maps + 1, maps)


class BehaviorHeads(nn.Module):
    """Code -> saccade gate, velocity, gain and phase offset (Polar-V1).

        h = two Dense + ReLU;  q = sigma(.),  v = v_max tanh(.),  gamma = 1 + softplus(.),  rho = 0.1 tanh(.)

    Attributes:
      neutral: start with heads that ignore the code, no saccade (q bias -3) and gain near 1, as retinal slip in
        physical units needs; False starts as the reference does.
      learned_gate: False takes the gate that is given for q.
      turns: whether there is a pose that turns; without, there is no velocity, gain and offset to learn.
    """

    n_levels: int
    n_pairs: int
    width: int
    max_velocity: float
    neutral: bool
    learned_gate: bool = True
    turns: bool = True

    @nn.compact
    def __call__(self, code: Float[Array, "B T D"], gate: Float[Array, "B T"]) -> Behavior:
        """Returns the four heads; column l*M + m of gain and offset belongs to level l, pair m."""
        maps = (code.shape[0], code.shape[1], self.n_levels, self.n_pairs)
        still = rest(maps, code.dtype)._replace(code=code, saccade_gate=gate)
        if not (self.learned_gate or self.turns):
            return still
        hidden = nn.relu(Dense(self.width, name="first")(code))
        hidden = nn.relu(Dense(self.width, name="second")(hidden))
        kernel = nn.initializers.zeros if self.neutral else nn.initializers.lecun_normal()

        def head(name: str, size: int, bias: float = 0.0) -> Array:
            start = nn.initializers.constant(bias if self.neutral else 0.0)
            return Dense(size, kernel_init=kernel, bias_init=start, name=name)(hidden)

        if self.learned_gate:
            still = still._replace(saccade_gate=nn.sigmoid(head("gate", 1, -3.0))[..., 0])
        if not self.turns:
            return still
        size = self.n_levels * self.n_pairs
        return still._replace(
            velocity=self.max_velocity * jnp.tanh(head("velocity", 2)),
            gain=1 + nn.softplus(head("gain", size, -4.0)).reshape(maps),
            offset=MAX_PHASE_OFFSET * jnp.tanh(head("offset", size)).reshape(maps),
        )
