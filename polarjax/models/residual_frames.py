"""Frames in the order of the residual network: what comes before them and what stands beside them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def pixels_first(stimulus: Float[Array, "B T H W C"]) -> Float[Array, "H W B T C"]:
    """Puts the pixels first, where the convolutions want them."""
    return jnp.transpose(stimulus, (2, 3, 0, 1, 4))


def begin_earlier(x: Array, n_frames: int) -> Array:
    """Puts n frames [B, n, ..] like the first before the frames."""
    return jnp.concatenate([jnp.repeat(x[:, :1], n_frames, axis=1), x], axis=1)


def join_code(x: Float[Array, "H W B T C"], code: Float[Array, "B T D"] | None) -> Float[Array, "H W B T K"]:
    """Puts the code of a frame beside the channels of every pixel."""
    if code is None:
        return x
    return jnp.concatenate([x, jnp.broadcast_to(code[None, None], (*x.shape[:4], code.shape[-1]))], axis=-1)


def join_context(
    context: Float[Array, "H W B c C"], x: Float[Array, "H W B T C"], first: Array
) -> Float[Array, "H W B t C"]:
    """Puts the context before the frames; what is before frame `first` of x, which may be negative, equals that."""
    joined = jnp.concatenate([context, x], axis=3)
    held = jnp.clip(first + context.shape[3], 0, joined.shape[3] - 1)
    return jnp.take(joined, jnp.maximum(jnp.arange(joined.shape[3]), held), axis=3)
