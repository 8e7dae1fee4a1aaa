"""The maps that a readout pools, before they are pooled: what self-supervision learns from."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.core import ConfigError
from polarjax.models import causal_pass
from polarjax.models.causal_pass import Frames, LevelMemory, PassOptions
from polarjax.models.layers import Behavior
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops import summaries
from polarjax.ops.laplacian_pyramid import laplacian_pyramid
from polarjax.ops.polar_decomposition import decompose


def summary_maps(
    model: PolarV1,
    stimulus: Float[Array, "B T H W C"],
    gaze: Float[Array, "B T 2"] | None,
    frames: tuple[int, ...],
) -> tuple[list[list[Float[Array, "B _ _ D"]]], Behavior | None]:
    """Returns the summaries at some frames of a segment that nothing came before, in one causal pass.

    A method of `PolarV1` in a file of its own: module.apply(variables, stimulus, gaze, frames, method=summary_maps).
    The maps of all frames of a level are held at once, and computed again for the gradient; of the summaries only
    those of `frames` are made. They are as they are: `standardize` belongs to what is pooled.

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
    movie, weights = (
        Frames(images, *motion).pixels_first(len(model.n_units)),
        model._weights((height, width)),
    )
    options, levels = causal_pass.pass_options(model), []
    for level, image in enumerate(movie.levels):
        responses = model._filter(level, image.reshape(-1, *image.shape[2:]))
        responses = tuple(x.reshape(*image.shape[:2], *x.shape[1:]) for x in responses)
        moves = (movie.decay, movie.pose_decay, movie.drive_gain, movie.rotation[level])
        given = (weights.resting_amplitude[level], weights.alphas, memory.levels[level], moves, responses)
        summarize = functools.partial(summarize_level, options, frames)
        levels.append(jax.checkpoint(summarize)(*given))
    return [[examples_first(level[i]) for level in levels] for i in range(len(frames))], behavior


def summarize_level(
    options: PassOptions,
    frames: tuple[int, ...],
    rest: Float[Array, " _"],
    alphas: dict[str, Array],
    memory: LevelMemory,
    motion: tuple,
    responses: tuple[Array, Array],
) -> list[Float[Array, "S h w b D"]]:
    """Moves the maps of a level through all frames and summarises them at some.

    Args:
      rest: abar of the level.
      motion: decay, decay of the pose, drive gain and rotation of the frames.
      responses: even and odd, of all frames [T, S, h, w, b, M].
    """
    amplitude, *pose = decompose(*responses, pose_floor=options.pose_floor)
    observed = (amplitude, (pose[0], pose[1]))
    amplitude, _, pose = causal_pass.evolve(options, rest, memory, jnp.ones((), bool), observed, motion)
    unused = jnp.zeros((), amplitude.dtype)
    fast, slow = (alphas.get(f"alpha_{name}", unused) for name in ("fast", "slow"))
    form = {"names": options.summaries, "bias_correction": options.bias_correction}
    return [
        summaries.summarize(amplitude[: t + 1], (pose[0][: t + 1], pose[1][: t + 1]), fast, slow, **form)
        for t in frames
    ]


def examples_first(maps: Float[Array, "S h w b D"]) -> Float[Array, "B h w D"]:
    """Restores the order of the examples: example i of B has session i % S."""
    ordered = jnp.moveaxis(maps, 3, 0)
    return ordered.reshape(-1, *ordered.shape[2:])
