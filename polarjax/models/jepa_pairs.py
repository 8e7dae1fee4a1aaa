"""What the JEPA head predicts from what: frames, masked positions, the action between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from polarjax.core import ConfigError


def random_masks(
    key: Array, maps: Sequence[Float[Array, "B _ _ D"]], *, ratio: float = 0.5
) -> list[Bool[Array, "B _ _"]]:
    """Draws k = max(1, int(ratio h w)) positions of every level, for each example.

    Raises:
      ConfigError: the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ConfigError(
            f"The share of masked JEPA positions is {ratio!r}; it must be above 0 and at most 1."
        )
    masks = []
    for level, x in enumerate(maps):
        batch, height, width = x.shape[:3]
        n = height * width
        first = jnp.broadcast_to(jnp.arange(n) < max(1, int(ratio * n)), (batch, n))
        drawn = jax.random.permutation(jax.random.fold_in(key, level), first, axis=1, independent=True)
        masks.append(drawn.reshape(batch, height, width))
    return masks


def context_frames(n_frames: int, deltas: tuple[Any, ...]) -> tuple[int, ...]:
    """Returns the last frames of the contexts of the target at frame T - 1: T - 1 - delta each.

    Raises:
      ConfigError: there is no delta, one is not a positive whole number, or the segment is not longer than it.
    """
    whole = all(isinstance(delta, int) and not isinstance(delta, bool) and delta > 0 for delta in deltas)
    if not deltas or not whole or len(set(deltas)) < len(deltas):
        raise ConfigError(
            f"The JEPA deltas are {deltas!r}; they must be different whole numbers of frames above 0."
        )
    if n_frames <= max(deltas):
        raise ConfigError(
            f"A JEPA target {max(deltas)} frames after its context needs more than {max(deltas)} frames, but segments "
            f"have {n_frames}; lengthen the segments (config.data.burn_in) or lower delta."
        )
    return tuple(n_frames - 1 - delta for delta in deltas)


def interval_action(code: Float[Array, "B T A"], delta: int) -> Float[Array, "B A"]:
    """Returns the mean gaze code of the frames between a context and the target at the last frame: the action."""
    # a product: a sum might be fused with what makes the code, and then round otherwise
    share = jnp.full(delta, 1 / delta, code.dtype)
    return jnp.einsum("t,bta->ba", share, code[:, -delta:], precision="highest")
