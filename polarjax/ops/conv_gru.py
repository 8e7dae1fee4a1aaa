"""A gated recurrent unit whose products are convolutions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.convolution import correlate
from polarjax.ops.normalization import group_norm, n_groups


class RecurrentWeights(NamedTuple):
    """What the hidden state goes through: a convolution to G = 3 D channels of three gates, and a group norm."""

    kernel: Float[Array, "k k D G"]
    scale: Float[Array, " G"]
    shift: Float[Array, " G"]


def conv_gru_drive(
    x: Float[Array, "H W *B C"], kernel: Float[Array, "k k C G"], bias: Float[Array, " G"]
) -> Float[Array, "H W *B G"]:
    """Returns what the input gives to the gates z, r, n, G = 3 D channels: a convolution with zero border, a bias."""
    drive = correlate(x[None], kernel)[0]
    return drive + bias.reshape((1,) * (drive.ndim - 1) + bias.shape)


def conv_gru_step(
    hidden: Float[Array, "H W *B D"], drive: Float[Array, "H W *B G"], weights: RecurrentWeights
) -> Float[Array, "H W *B D"]:
    """Advances the hidden state by one frame.

        z, r = sigma(x_zr + h_zr),   n = tanh(x_n + h_n + r h),   h' = (1 - z) h + z n

    where x_zrn is the drive and h_zrn = GroupNorm(conv(h)) over min(32, D) groups of the 3 D channels. The reset gate
    multiplies h itself, so h must have the channels of n; groups may straddle the gates, as in the reference.

    Source: Ballas et al. (2016), with the normalisation and the reset gate of VisionCore's ConvGRU.
    """
    n_hidden = hidden.shape[-1]
    recurrent = correlate(hidden[None], weights.kernel)[0]
    recurrent = group_norm(recurrent, weights.scale, weights.shift, groups=n_groups(n_hidden))
    update, reset, new = jnp.split(drive + recurrent, 3, axis=-1)
    update, reset = jax.nn.sigmoid(update), jax.nn.sigmoid(reset)
    return (1 - update) * hidden + update * jnp.tanh(new + reset * hidden)


def conv_gru(
    start: Float[Array, "H W B s D"],
    drive: Float[Array, "H W B T G"],
    weights: RecurrentWeights,
    runs: Float[Array, " T"] | None = None,
) -> Float[Array, "H W B T D"]:
    """Runs s interleaved sequences, the state at frame t following that at frame t - s.

    Args:
      start: states of the s frames before the first, the oldest first.
      runs: 1 where the state moves, 0 where it stays; None where it moves at all frames.

    Returns:
      The states at all frames.
    """
    n_frames, lag = drive.shape[3], start.shape[3]
    n_steps = -(-n_frames // lag)
    missing = n_steps * lag - n_frames
    gates = _in_steps(jnp.pad(drive, [(0, 0)] * 3 + [(0, missing), (0, 0)]), n_steps)
    moves = jnp.ones(n_frames, drive.dtype) if runs is None else runs
    moves = jnp.pad(moves, (0, missing)).reshape(n_steps, 1, 1, 1, lag, 1)

    def step(hidden: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        gate, moving = given
        hidden = jnp.where(moving > 0, conv_gru_step(hidden, gate, weights), hidden)
        return hidden, hidden

    _, states = jax.lax.scan(step, start, (gates, moves))
    states = jnp.moveaxis(states, 0, 3).reshape(*start.shape[:3], n_steps * lag, -1)
    return states[:, :, :, :n_frames]


def _in_steps(x: Array, n_steps: int) -> Array:
    split = x.reshape(*x.shape[:3], n_steps, -1, x.shape[-1])
    return jnp.moveaxis(split, 3, 0)
