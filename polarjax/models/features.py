"""The features of Polar-V1: which maps are pooled, and how what was pooled is averaged over time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops import dynamics, summaries
from polarjax.ops.division import divide

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
    return divide(raw, summaries.ema_bias(alpha, age.astype(x.dtype)).reshape(shape)), raw[-1]


def newest_shares(
    names: tuple[str, ...], bias_correction: bool, alphas: dict[str, Array], n_frames: int, dtype: Any
) -> dict[str, Float[Array, " T"]]:
    """Returns what each of T frames contributes to the summaries of the newest that are sums of amplitudes."""
    ages = jnp.arange(n_frames - 1, -1, -1, dtype=dtype)

    def average(name: str) -> Array:
        alpha = alphas[f"alpha_{name}"]
        share = (1 - alpha) * alpha**ages
        return divide(share, summaries.ema_bias(alpha, ages[0] + 1)) if bias_correction else share

    last, before = ((ages == age).astype(dtype) for age in (0, min(n_frames - 1, 1)))
    of_two = {"last": last, "derivative": last - before}
    return {
        name: of_two[name] if name in of_two else average(name)
        for name in AMPLITUDE_SUMMARIES
        if name in names
    }


def mix_over_time(
    bias_correction: bool,
    alphas: dict[str, Array],
    mixed: dict[str, Float[Array, "_ B W"]],
    n_scored: int,
) -> Float[Array, "n B W"]:
    """Adds up what the summaries of the last n frames give, of maps that were weighed before they were averaged.

    Args:
      mixed: for every summary the frames of its map, weighed by its kernel.
    """

    def of_time(name: str, x: Float[Array, "_ B W"]) -> Float[Array, "_ B W"]:
        if name not in AMPLITUDE_SUMMARIES or name == "last":
            return x
        if name == "derivative":
            return x - jnp.concatenate([x[:1], x[:-1]])
        age = 1 + jnp.arange(len(x)) if bias_correction else None
        return running_average(x, jnp.zeros_like(x[0]), alphas[f"alpha_{name}"], age)[0]

    return sum((of_time(name, x)[-n_scored:] for name, x in mixed.items()), start=jnp.zeros(()))
