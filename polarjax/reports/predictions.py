"""Predicted rates of a tier, put back on the time line of every session."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from polarjax.core import Data, PyTree, SessionInfo, System

SAME_GAZE_DEG = 0.05


@dataclasses.dataclass(frozen=True)
class SessionPrediction:
    """A session's predicted and observed activity, T bins and N units.

    Attributes:
      rate: predicted spikes/bin; 0 where nothing was predicted.
      spikes: observed counts per bin.
      scored: where a prediction was made for a valid bin of the tier.
      gaze: degrees, x right, y up.
      trial: number of the trial of every bin.
      repeat: the same value at the same bin of repeated trials, -1 elsewhere; None without repeats.
      true_rate: spikes/bin that generated the counts; None for recordings.
    """

    info: SessionInfo
    rate: Float[np.ndarray, "T N"]
    spikes: Num[np.ndarray, "T N"]
    scored: Bool[np.ndarray, "T N"]
    gaze: Num[np.ndarray, "T 2"]
    trial: Int[np.ndarray, " T"]
    repeat: Int[np.ndarray, " T"] | None
    true_rate: Num[np.ndarray, "T N"] | None


def predict_sessions(
    config: Any, system: System, data: Data, params: PyTree, model_state: PyTree, tier: int
) -> list[SessionPrediction]:
    """Predicts every bin of a tier once, with at least config.data.burn_in frames of history; nothing without units.

    Args:
      tier: 0 train, 1 validation, 2 test.
    """

    @jax.jit
    def log_rates(params, model_state, resident, request):
        return system.predict(params, model_state, data.fetch(resident, request))

    number = len(data.sessions)
    lengths = [len(session.spikes) for session in data.sessions]
    units = [len(info.unit_ids) for info in data.info.sessions]
    rates = [np.zeros((length, count), np.float32) for length, count in zip(lengths, units, strict=True)]
    reached = [np.zeros(length, bool) for length in lengths]
    params, model_state, resident = jax.tree.map(jnp.asarray, (params, model_state, data.resident))
    for request in data.evaluation(tier, config.data.batch_size) if any(units) else ():
        log_rate = np.asarray(log_rates(params, model_state, resident, request))
        for example, (start, counted) in enumerate(zip(request["start"], request["counted"], strict=True)):
            index = example % number
            new = np.flatnonzero(counted)
            bins = int(start) + config.data.burn_in + new
            rates[index][bins] = np.exp(log_rate[example, new, : units[index]])
            reached[index][bins] = True
    return [
        _session_prediction(session, info, rate, was_reached)
        for session, info, rate, was_reached in zip(
            data.sessions, data.info.sessions, rates, reached, strict=True
        )
    ]


def _session_prediction(session, info, rate, reached):
    valid = np.broadcast_to(np.asarray(session.valid, bool), rate.shape)
    return SessionPrediction(
        info=info,
        rate=rate,
        spikes=np.asarray(session.spikes),
        scored=valid & reached[:, None],
        gaze=np.asarray(session.gaze),
        trial=np.asarray(session.trial),
        repeat=None if session.repeat is None else np.asarray(session.repeat),
        true_rate=None if session.true_rate is None else np.asarray(session.true_rate),
    )


def stack_repeats(
    prediction: SessionPrediction,
) -> tuple[Float[np.ndarray, "R K N"], Float[np.ndarray, "R K N"], Bool[np.ndarray, "R K N"]] | None:
    """Gathers the trials of each repeated bin: predicted rates, counts, and which of them exist.

    Returns:
      K repeated bins of up to R trials; None where no scored bin is repeated.
    """
    if prediction.repeat is None:
        return None
    bins = np.flatnonzero((prediction.repeat >= 0) & prediction.scored.any(axis=1))
    if len(bins) == 0:
        return None
    _, column, number = np.unique(prediction.repeat[bins], return_inverse=True, return_counts=True)
    order = np.argsort(column, kind="stable")
    first = np.concatenate([[0], np.cumsum(number)[:-1]])
    row = np.empty(len(bins), np.int64)
    row[order] = np.arange(len(bins)) - first[column[order]]
    shape = (int(number.max()), len(number), prediction.rate.shape[1])
    rate, spikes, valid = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    rate[row, column] = prediction.rate[bins]
    spikes[row, column] = prediction.spikes[bins]
    valid[row, column] = prediction.scored[bins]
    return rate, spikes, valid


def repeats_share_gaze(prediction: SessionPrediction) -> bool:
    """Whether the eye was at the same place, to 0.05 degrees, whenever a bin was repeated.

    Only then does the variance over trials of the same image count as noise. False where nothing was repeated.
    """
    if prediction.repeat is None:
        return False
    bins = np.flatnonzero((prediction.repeat >= 0) & prediction.scored.any(axis=1))
    _, column, number = np.unique(prediction.repeat[bins], return_inverse=True, return_counts=True)
    gaze = prediction.gaze[bins]
    mean = np.stack([np.bincount(column, weights=axis) for axis in gaze.T], axis=-1) / number[:, None]
    return bool(np.abs(gaze - mean[column]).max() < SAME_GAZE_DEG)
