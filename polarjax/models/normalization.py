"""Divisive normalisation of a unit's drive by the contrast around its receptive field."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.gaussian_pooling import level_positions, local_contrast, normalized_gaussian

INITIAL_SEMI_SATURATION = 0.2  # RMS contrast of (luminance - 127)/255; photographs have 0.1 to 0.3


class ContrastNormalization(nn.Module):
    """Divides what the features drive by the local contrast of the same frame, not by that of the past.

        drive' = bias + (drive - bias) 2 s / (s + c),   c the RMS contrast under a round Gaussian on the unit's centre

    In `PolarV1` the bias is what is left of it when the features are standardized, so the features are divided as they
    are, not less their mean. At c = s nothing changes. Without it a model has to take the compression by contrast,
    which follows each frame at once, for memory.

    Attributes:
      units: (S, N).
      initial_width: standard deviation of the Gaussians, degrees.
      pixels_per_degree: of the frames.
      stride: every stride-th pixel is taken.

    Source: divisive normalisation by local contrast, Heeger (1992); Bonin, Mante & Carandini (2005).
    """

    units: tuple[int, int]
    initial_width: float
    pixels_per_degree: float
    stride: int

    @nn.compact
    def __call__(
        self,
        drive: Float[Array, "n B N"],
        bias: Float[Array, "S N"],
        stimulus: Float[Array, "B n H W C"],
        mean: Float[Array, "S N 2"],
    ) -> Float[Array, "n B N"]:
        """Returns the normalised drive.

        Args:
          bias: what is not divided.
          stimulus: the frames of the drive.
          mean: centres of the receptive fields, degrees.
        """
        log_width = self.param("log_width", nn.initializers.constant(np.log(self.initial_width)), self.units)
        start = nn.initializers.constant(np.log(INITIAL_SEMI_SATURATION))
        half = jnp.exp(self.param("log_semi_saturation", start, self.units))
        small = stimulus[:, :, :: self.stride, :: self.stride]
        (height, width), size = small.shape[2:4], (stimulus.shape[2], stimulus.shape[3])
        x, y = level_positions((height, width), size, self.stride, self.pixels_per_degree)
        positions = (jnp.asarray(x, mean.dtype), jnp.asarray(y, mean.dtype))
        widths = jnp.stack([log_width, log_width], axis=-1)
        window = normalized_gaussian(mean, widths, jnp.zeros_like(log_width), positions)
        contrast = jnp.moveaxis(local_contrast(small, window), 1, 0)
        repeats = len(contrast[0]) // self.units[0]
        half, bias = (jnp.tile(x, (repeats, 1))[None] for x in (half, bias))
        return bias + (drive - bias) * 2 * half / (half + contrast)
