"""How sure a comparison is: intervals over seeds, over units and over trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtrit

from polarjax import metrics
from polarjax.metrics import RATE_FLOOR
from polarjax.reports.predictions import SessionPrediction

MIN_TRIALS, MIN_GROUPS, BLOCK_S = 10, 5, 1.0


class PairedDifference(NamedTuple):
    """Difference of the same units and the same seeds of two models.

    Attributes:
      units: of every unit, the mean over seeds; NaN where one of its runs has none.
      each: of every seed, the mean over the units that have a number.
      over_units: interval of the mean over units that could have been recorded instead.
      over_seeds: interval of the mean over seeds that could have been drawn instead.
    """

    units: Float[np.ndarray, " N"]
    each: Float[np.ndarray, " K"]
    over_units: tuple[float, float]
    over_seeds: tuple[float, float]


def t_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a few runs that differ by their seed: mean -+ t(n - 1) s/sqrt(n).

    Args:
      values: one number a seed.
      level: in (0, 1).

    Returns:
      Lower and upper bound; NaN both for fewer than two seeds, which tell nothing of their spread.

    Source: Student 1908.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.size < 2:
        return math.nan, math.nan
    quantile = stdtrit(numbers.size - 1, (1 + level) / 2)
    half = float(quantile * numbers.std(ddof=1) / math.sqrt(numbers.size))
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def paired_difference(
    values: Float[np.ndarray, "K N"], reference: Float[np.ndarray, "K N"]
) -> PairedDifference:
    """Difference of every unit to the same unit of the reference, over K seeds that both have.

    Units of a run share its core and its initialisation, so the luck of a seed moves them together: a bootstrap over
    units does not see it. Student's t over the means of the seeds does, and neither sees what the other does.

    Returns:
      Both intervals are NaN where there are fewer than two units or seeds.
    """
    difference = values - reference
    units = difference.mean(axis=0) if len(difference) else np.full(difference.shape[1], np.nan)
    known = np.isfinite(units)
    each = difference[:, known].mean(axis=1) if known.any() else np.full(len(difference), np.nan)
    return PairedDifference(units, each, metrics.bootstrap_interval(units), t_interval(each.tolist()))


def trial_groups(prediction: SessionPrediction, rate_hz: float) -> Int[np.ndarray, " T"]:
    """Number of the group of every bin that is drawn as one: its trial, with all others that repeat it.

    Neighbouring bins are alike, and presentations of one stimulus are predicted alike, so they stay together: other
    stimuli could have been shown, and only their number says how sure a difference is. Where that leaves fewer than 10
    groups that are scored, trials are cut into blocks of 1 s, which their repeats join.
    """
    trial = np.asarray(prediction.trial)
    scored = prediction.scored.any(axis=1)
    group = _join_repeats(np.unique(trial, return_inverse=True)[1], prediction.repeat)
    if len(np.unique(group[scored])) >= MIN_TRIALS:
        return group
    block = max(round(BLOCK_S * rate_hz), 1)
    first = np.concatenate([[True], trial[1:] != trial[:-1]])
    begin = np.maximum.accumulate(np.where(first, np.arange(len(trial)), 0))
    opens = first | ((np.arange(len(trial)) - begin) % block == 0)
    return _join_repeats(np.cumsum(opens) - 1, prediction.repeat)


def trial_gains(
    left: SessionPrediction, right: SessionPrediction, rate_hz: float
) -> tuple[Float[np.ndarray, "J N"], Float[np.ndarray, "J N"]]:
    """Gain in log likelihood of the right model over the left one, and the spikes, in each group of bins.

        gain_jn = sum over bins t of group j that both scored of (y log r - r)_right - (y log r - r)_left

    Returns:
      Nats and counts of J groups (`trial_groups`) with at least one scored bin.
    """
    both = left.scored & right.scored
    group = trial_groups(left, rate_hz)
    counts = np.where(both, left.spikes, 0).astype(np.float64)
    terms = np.zeros(both.shape)
    for sign, prediction in ((-1.0, left), (1.0, right)):
        rate = np.where(both, prediction.rate, 0.0).astype(np.float64)
        terms += sign * (counts * np.log(rate + RATE_FLOOR) - rate)
    size = (int(group.max()) + 1, both.shape[1])
    gain, spikes, bins = np.zeros(size), np.zeros(size), np.zeros(size)
    for total, values in ((gain, np.where(both, terms, 0.0)), (spikes, counts), (bins, both)):
        np.add.at(total, group, values)
    kept = bins.any(axis=1)
    return gain[kept], spikes[kept]


def gain_interval(
    gain: Float[np.ndarray, "J N"],
    spikes: Float[np.ndarray, "J N"],
    *,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Difference in bits per spike of every unit with its percentile interval over trials drawn again.

        d_n = sum_j gain_jn / (ln 2 sum_j spikes_jn)

    Both sums are drawn together, so a trial with many spikes weighs in both. A draw without a spike of the unit is
    left out of its interval.

    Returns:
      d, lower and upper bound. All are NaN for units without a spike, the bounds also for those that fewer than 5
      groups tell of: so few, drawn again, do not show how they scatter.

    Source: Efron 1979, for a ratio of sums.
    """
    trials = len(gain)
    drawn = np.random.default_rng(seed).multinomial(trials, np.full(trials, 1 / trials), size=samples)
    total, counts = drawn @ gain, drawn @ spikes
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(counts > 0, total / (counts * math.log(2)), np.nan)
        difference = np.where(
            spikes.sum(axis=0) > 0, gain.sum(axis=0) / (spikes.sum(axis=0) * math.log(2)), np.nan
        )
    low, high = (np.full(gain.shape[1], np.nan) for _ in range(2))
    enough = np.isfinite(difference) & (((gain != 0) | (spikes > 0)).sum(axis=0) >= MIN_GROUPS)
    if enough.any():
        low[enough], high[enough] = np.nanquantile(
            bits[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0
        )
    return difference, low, high


def known_interval(bounds: tuple[float, float]) -> list[float] | None:
    """Bounds for a report: None where they are NaN, for no interval."""
    return None if any(map(math.isnan, bounds)) else list(bounds)


def _join_repeats(
    group: Int[np.ndarray, " T"], repeat: Int[np.ndarray, " T"] | None
) -> Int[np.ndarray, " T"]:
    """Numbers the groups 0, 1, .. anew, as one where they share the number of a repeated bin."""
    if repeat is None:
        return group
    groups, repeated = int(group.max()) + 1, repeat >= 0
    number = np.unique(repeat[repeated], return_inverse=True)[1]
    nodes = groups + len(np.unique(number))
    edges = coo_array((np.ones(len(number)), (group[repeated], groups + number)), shape=(nodes, nodes))
    joined = connected_components(edges, directed=False)[1][group]
    return np.unique(joined, return_inverse=True)[1]
