"""Linear-nonlinear model: the floor that any model of V1 must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import ConfigError, closest
from polarjax.models.readout import UNIT_SOFTPLUS, softplus_log_rate
from polarjax.models.silence import INITIAL_LOGIT
from polarjax.models.silence import NAME as SILENCE
from polarjax.ops.laplacian_pyramid import downsample

LINKS = ("softplus", "exp")


class LinearNonlinear(nn.Module):
    """One spatio-temporal filter of low rank a unit on the blurred, halved frames, then a softplus or exp.

        drive = bias + sum_r sum_lag f_r(lag) sum_xy g_r(x, y) stimulus(t - lag, x, y)
        rate = mean rate * softplus(drive), or exp(drive)

    Attributes:
      n_units, frame_shape, initial_rate: as in `PolarV1`.
      n_lags: K, frames that the filters see.
      rank: number of pairs of a spatial and a temporal filter.
      link: 'softplus' or 'exp', as in `PolarV1`.
      zero_inflated: as in `PolarV1`.

    Source: the linear-nonlinear-Poisson cascade, Chichilnisky (2001).
    """

    n_units: tuple[int, ...]
    frame_shape: tuple[int, int, int]
    initial_rate: tuple = ()
    n_lags: int = 9
    rank: int = 2
    link: str = "softplus"
    zero_inflated: bool = False

    def setup(self) -> None:
        """Creates the filters, [S, N, R, ..] each.

        Raises:
          ConfigError: there is no such link.
        """
        if self.link not in LINKS:
            raise ConfigError(f"config.model.kwargs.link is {self.link!r}{closest(str(self.link), LINKS)}.")
        units = (len(self.n_units), max(self.n_units))
        side = [-(-size // 2) for size in self.frame_shape[:2]]
        n_inputs = side[0] * side[1] * self.frame_shape[2]
        self.spatial = self.param(
            "spatial",
            lambda rng: {"kernel": nn.initializers.normal(1e-3)(rng, (*units, self.rank, n_inputs))},
        )
        spread = nn.initializers.normal(1 / np.sqrt(self.n_lags))
        self.temporal = self.param(
            "temporal", lambda rng: {"kernel": spread(rng, (*units, self.rank, self.n_lags))}
        )
        rate = jnp.broadcast_to(jnp.asarray(self.initial_rate or 1.0, jnp.float32), units)
        bias = jnp.log(rate) if self.link == "exp" else jnp.full(units, UNIT_SOFTPLUS)
        self.bias = self.param("bias", lambda _: bias)
        if self.zero_inflated:
            self.silence_logit = self.param(SILENCE, nn.initializers.constant(INITIAL_LOGIT), units)

    @property
    def uses_gaze(self) -> bool:
        """The gaze plays no part."""
        return False

    def time_constants(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """The model has none."""
        return {}

    def __call__(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None = None
    ) -> tuple[Float[Array, "B N"], dict[str, Any]]:
        """Predicts the last frame of a window; see `PolarV1`."""
        _, log_rate, intermediates = self.advance(stimulus, gaze, None)
        return log_rate[:, -1], intermediates

    def predict(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, n_predicted: int
    ) -> tuple[Float[Array, "B n N"], dict[str, Any]]:
        """Predicts the last n frames of segments that nothing came before; see `PolarV1`."""
        _, log_rate, intermediates = self.advance(stimulus, gaze, None)
        return log_rate[:, -n_predicted:], intermediates

    def initial_memory(self, batch: int, frame_shape: tuple[int, int]) -> Float[Array, "B k N R"]:
        """Returns the spatial drive of the n_lags - 1 frames before the first: none."""
        return jnp.zeros((batch, self.n_lags - 1, max(self.n_units), self.rank))

    def advance(
        self, stimulus: Float[Array, "B T H W C"], gaze: Float[Array, "B T 2"] | None, memory: Array | None
    ) -> tuple[Array, Float[Array, "B T N"], dict[str, Any]]:
        """Predicts every frame of a movie from the memory of what came before; see `PolarV1`."""
        batch, n_frames = stimulus.shape[:2]
        n_sessions, n_units = len(self.n_units), max(self.n_units)
        memory = (
            self.initial_memory(batch, (stimulus.shape[2], stimulus.shape[3])) if memory is None else memory
        )
        small = downsample(stimulus, normalized=True).reshape(batch // n_sessions, n_sessions, n_frames, -1)
        drive = jnp.einsum("bstp,snrp->bstnr", small, self.spatial["kernel"], precision="highest")
        drive = jnp.concatenate([memory, drive.reshape(batch, n_frames, n_units, self.rank)], axis=1)
        lagged = jnp.stack([drive[:, lag : lag + n_frames] for lag in range(self.n_lags)], axis=-1)
        grouped = lagged.reshape(batch // n_sessions, n_sessions, *lagged.shape[1:])
        summed = jnp.einsum("bstnrk,snrk->bstn", grouped, self.temporal["kernel"], precision="highest")
        drive_in_time = jnp.moveaxis(summed + self.bias[None, :, None], 2, 0).reshape(
            n_frames, batch, n_units
        )
        exponential = self.link == "exp"
        log_rate = drive_in_time if exponential else softplus_log_rate(drive_in_time, self.initial_rate)
        return drive[:, n_frames:], jnp.moveaxis(log_rate, 0, 1), {}
