"""The features of Polar-V1: which maps are pooled, and how what was pooled is averaged over time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops import dynamics, summaries

AMPLITUDE_SUMMARIES = ("last", "fast", "slow", "derivative")


def maps_to_pool(
    names: tuple[str, ...], poses: tuple, fresh: Array, state: tuple
) -> tuple[dict[str, Array], tuple]:
    """Returns the maps of K frames that the summaries are made of, and the two newest unit poses if they need them."""
    amplitude, _, pose = state
    maps = {"even": lambda: amplitude * pose[0], "odd": lambda: amplitude * pose[1]}
    wanted = {name: make() for name, make in maps.items() if name in names}
    if "energy" in names:
        wanted["energy"], poses = _energy(pose, poses, fresh)
    if set(names) & set(AMPLITUDE_SUMMARIES):
        wanted["last"] = amplitude
    return wanted, poses


def average_over_time(
    names: tuple[str, ...],
    bias_correction: bool,
    alphas: dict[str, Array],
    averages: tuple,
    time: tuple,
    pooled: dict[str, Array],
) -> tuple[tuple, Float[Array, "K B N D"]]:
    """Makes the summaries from pooled maps.

    Args:
      averages: running averages and newest value of the pooled amplitude, or anything where nothing came before.
      time: whether nothing came before, and the number of frames seen at each of the K.
      pooled: the pooled maps of the K frames; of maps without memory the newest frames may be all there is, and
        features of as many frames are returned.
    """
    parts = dict(pooled)
    if "last" in pooled:
        averages, over_time = _average_amplitude(
            names, bias_correction, alphas, averages, time, pooled["last"]
        )
        parts |= over_time
    n_frames = min(len(part) for part in parts.values())
    return averages, jnp.concatenate([parts[name][-n_frames:] for name in names], axis=-1)


def _energy(pose: tuple, poses: tuple, fresh: Array) -> tuple[Array, tuple]:
    """Returns the motion energy of K frames and the two newest unit poses."""
    past = jax.tree.map(lambda new, old: jnp.where(fresh, new[0], old), (pose, pose), poses)
    history = [jnp.concatenate([past[1][i][None], past[0][i][None], pose[i]]) for i in range(2)]
    energy = summaries.pose_energy(pose, (history[0][:-2], history[1][:-2]))
    return energy, tuple(tuple(part[-1 - back] for part in history) for back in range(2))


def _average_amplitude(
    names: tuple[str, ...],
    bias_correction: bool,
    alphas: dict[str, Array],
    averages: tuple,
    time: tuple,
    last: Float[Array, "K B N M"],
) -> tuple[tuple, dict[str, Array]]:
    """Returns the averages and the value to hand on, and the four summaries of the pooled amplitude."""
    (fast, slow, newest), (fresh, age) = averages, time
    before = jnp.concatenate([jnp.where(fresh, last[0], newest)[None], last[:-1]])
    parts = {"last": last, "derivative": last - before}
    corrected = age if bias_correction else None
    carried = []
    for name, average in (("fast", fast), ("slow", slow)):
        if name in names:
            parts[name], average = running_average(last, average, alphas[f"alpha_{name}"], corrected)
        carried.append(average)
    return (*carried, last[-1]), parts


def running_average(
    x: Float[Array, "K *S"], start: Float[Array, "*S"], alpha: Float[Array, ""], age: Array | None
) -> tuple[Float[Array, "K *S"], Float[Array, "*S"]]:
    """Averages exponentially over time.

    Args:
      age: number of frames seen at each of the K, to correct for the start from 0; none leaves it as it is.

    Returns:
      The average at each frame, and what to start from at the next (not corrected).
    """
    shape = (x.shape[0], *(1,) * (x.ndim - 1))
    if x.shape[0] == 1:
        raw = (alpha * start + (1 - alpha) * x[0])[None]
    else:
        raw = dynamics.linear_recurrence(jnp.broadcast_to(alpha, shape), (1 - alpha) * x, start)
    if age is None:
        return raw, raw[-1]
    return raw / summaries.ema_bias(alpha, age.astype(x.dtype)).reshape(shape), raw[-1]
