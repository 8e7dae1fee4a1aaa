"""The maps that a readout pools, before they are pooled: what self-supervision learns from."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models import causal_pass, impulse_pass, segment_pass
from polarjax.models.layers import Behavior
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops.laplacian_pyramid import laplacian_pyramid


def summary_maps(
    model: PolarV1,
    stimulus: Float[Array, "B T H W C"],
    gaze: Float[Array, "B T 2"] | None,
    frames: tuple[int, ...],
) -> tuple[list[list[Float[Array, "B _ _ D"]]], Behavior | None]:
    """Returns the summaries at some frames of a segment that nothing came before, in one causal pass.

    A method of `PolarV1` in a file of its own: module.apply(variables, stimulus, gaze, frames, method=summary_maps).
    The maps of all frames are computed again for the gradient, and of the summaries only those of `frames` are made.
    They are as they are: `standardize` belongs to what is pooled.

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
    levels = impulse_pass.maps_at(
        causal_pass.pass_options(model),
        model._weights((height, width)),
        model.bank,
        images,
        model.bank_strides,
        motion,
        frames=frames,
        in_bands=segment_pass.prefers_bands(model),
    )
    levels = [jnp.moveaxis(maps, (1, 2), (0, -1)) for maps in levels]
    return [[maps[i] for maps in levels] for i in range(len(frames))], behavior
