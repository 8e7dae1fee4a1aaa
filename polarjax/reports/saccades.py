"""Saccades found in the gaze, and the rates around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from polarjax.reports.predictions import SessionPrediction

THRESHOLD_DEG_PER_S = 30.0
REFRACTORY_S = 0.05
BEFORE_S, AFTER_S = 0.1, 0.3


def saccade_onsets(
    gaze: Num[np.ndarray, "T 2"], trial: Int[np.ndarray, " T"], rate_hz: float
) -> Int[np.ndarray, " n"]:
    """Frames where the speed of the gaze rises above 30 deg/s, 50 ms or more after the last such frame.

    Args:
      gaze: degrees.
      trial: number of the trial of every frame; steps between trials are not saccades.

    Source: velocity threshold, after Engbert & Kliegl 2003.
    """
    speed = np.zeros(len(gaze))
    speed[1:] = np.linalg.norm(np.diff(gaze.astype(np.float64), axis=0), axis=1) * rate_hz
    speed[1:][np.diff(trial) != 0] = 0.0
    fast = speed > THRESHOLD_DEG_PER_S
    rising = np.flatnonzero(fast[1:] & ~fast[:-1]) + 1
    onsets, last = [], -np.inf
    for frame in rising:
        if frame - last >= REFRACTORY_S * rate_hz:
            onsets.append(frame)
            last = frame
    return np.asarray(onsets, np.int64)


def saccade_triggered_average(
    predictions: Sequence[SessionPrediction], rate_hz: float
) -> tuple[int, dict[str, Float[np.ndarray, " K"]]]:
    """Mean rate over units around the onset of a saccade, as a multiple of the units' mean rate.

    Returns:
      Number of saccades, and by name: time_ms from 100 ms before to 300 ms after; model, data, and oracle where every
      session has true rates; error, the standard error of data over saccades. Bins that are not scored and bins of
      other trials are left out.
    """
    lags = np.arange(-round(BEFORE_S * rate_hz), round(AFTER_S * rate_hz) + 1)
    rows: dict[str, list[np.ndarray]] = {"model": [], "data": [], "oracle": []}
    for prediction in predictions:
        for name, sources in _aligned(prediction, lags, rate_hz).items():
            rows[name].append(sources)
    joined = {name: np.concatenate(parts) for name, parts in rows.items() if len(parts) == len(predictions)}
    average = {name: _mean(values) for name, values in joined.items()}
    number = np.isfinite(joined["data"]).sum(axis=0)
    squares = np.where(np.isfinite(joined["data"]), joined["data"] - average["data"][None], 0.0) ** 2
    average["error"] = np.sqrt(squares.sum(axis=0) / np.maximum(number - 1, 1) / np.maximum(number, 1))
    average["time_ms"] = lags * 1000.0 / rate_hz
    return len(joined["data"]), average


def _aligned(prediction, lags, rate_hz):
    """Rows of one saccade each: mean over scored units of rate / mean rate of the unit; NaN where none is scored."""
    onsets = saccade_onsets(prediction.gaze, prediction.trial, rate_hz)
    frames = onsets[:, None] + lags[None]
    inside = (frames >= 0) & (frames < len(prediction.trial))
    frames = np.clip(frames, 0, len(prediction.trial) - 1)
    inside &= prediction.trial[frames] == prediction.trial[onsets][:, None]
    keep = (inside & prediction.scored.any(axis=1)[frames]).any(axis=1)
    sources = {"model": prediction.rate, "data": prediction.spikes}
    if prediction.true_rate is not None:
        sources["oracle"] = prediction.true_rate
    bins = np.maximum(prediction.scored.sum(axis=0), 1)
    mean = np.where(prediction.scored, prediction.spikes, 0).sum(axis=0) / bins
    active = prediction.scored & (mean > 0)[None]
    number = active.sum(axis=1)
    rows = {}
    for name, values in sources.items():
        relative = np.where(active, values / np.where(mean > 0, mean, 1.0)[None], 0.0).sum(axis=1)
        relative = np.where(number > 0, relative / np.maximum(number, 1), np.nan)
        rows[name] = np.where(inside, relative[frames], np.nan)[keep]
    return rows


def _mean(rows):
    finite = np.isfinite(rows)
    number = finite.sum(axis=0)
    total = np.where(finite, rows, 0.0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
