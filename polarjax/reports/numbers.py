"""The numbers of a report: one row a unit, and what is said of them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polarjax import metrics
from polarjax.reports.predictions import SessionPrediction, repeats_share_gaze, stack_repeats
from polarjax.reports.statistics import known_interval

TIER_NAMES = ("train", "validation", "test")
MIN_TRIALS, MIN_BINS = 2, 20
COLUMNS = (
    "session",
    "unit",
    "x_deg",
    "y_deg",
    "bins",
    "spikes",
    "mean_rate_hz",
    "bits_per_spike",
    "bits_per_spike_eval_null",
    "oracle_bits_per_spike",
    "correlation",
    "correlation_with_trial_mean",
    "noise_corrected_correlation",
)
"""Of units.csv, which has no row where no session has units."""


def unit_rows(predictions: Sequence[SessionPrediction], rate_hz: float) -> list[dict[str, Any]]:
    """One row a unit: session, unit, where it looks, what was scored and every metric; NaN where undefined.

    A session without spikes has no rows. Every row has the `COLUMNS`.
    """
    rows = []
    for prediction in (entry for entry in predictions if entry.info.unit_ids):
        columns = _unit_columns(prediction, rate_hz)
        for index, unit in enumerate(prediction.info.unit_ids):
            x, y = prediction.info.position_deg[index]
            row = {"session": prediction.info.name, "unit": unit, "x_deg": x, "y_deg": y}
            rows.append(row | {name: values[index].item() for name, values in columns.items()})
    return rows


def _unit_columns(prediction, rate_hz):
    rate, spikes, scored = prediction.rate, prediction.spikes, prediction.scored
    null = np.asarray(prediction.info.mean_count)
    counts = np.where(scored, spikes, 0).sum(axis=0, dtype=np.float64)
    nothing = np.full(len(null), np.nan)
    columns = {
        "bins": scored.sum(axis=0),
        "spikes": counts,
        "mean_rate_hz": counts / np.maximum(scored.sum(axis=0), 1) * rate_hz,
        "bits_per_spike": metrics.bits_per_spike(rate, spikes, scored, null),
        "bits_per_spike_eval_null": metrics.bits_per_spike(rate, spikes, scored),
        "oracle_bits_per_spike": nothing,
        "correlation": metrics.correlation(rate, spikes, scored),
        "correlation_with_trial_mean": nothing,
        "noise_corrected_correlation": nothing,
    }
    if prediction.true_rate is not None:
        columns["oracle_bits_per_spike"] = metrics.bits_per_spike(prediction.true_rate, spikes, scored, null)
    repeats = stack_repeats(prediction)
    if repeats is not None:
        columns["correlation_with_trial_mean"] = metrics.trial_mean_correlation(*repeats)
        if repeats_share_gaze(prediction):
            columns["noise_corrected_correlation"] = metrics.noise_corrected_correlation(
                *repeats, min_trials=MIN_TRIALS, min_bins=MIN_BINS
            )
    return columns


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of all units, or of one session's.

    Returns:
      bits_per_spike (null rate of the training split; eval_null_* of the evaluated one), oracle_bits_per_spike and
      oracle_fraction (None without true rates), correlation, noise_corrected_correlation, units, units_left_out.
    """
    bits = _column(rows, "bits_per_spike")
    oracle = _column(rows, "oracle_bits_per_spike")
    both = np.isfinite(bits) & np.isfinite(oracle)
    known = bool(both.any()) and both.sum() == np.isfinite(bits).sum()
    own_null = _statistics(_column(rows, "bits_per_spike_eval_null"))
    return {
        "bits_per_spike": _statistics(bits)
        | {"null": "train"}
        | {f"eval_null_{name}": value for name, value in own_null.items()},
        "oracle_bits_per_spike": _statistics(oracle) if known else None,
        "oracle_fraction": float(bits[both].mean() / oracle[both].mean()) if known else None,
        "correlation": _statistics(_column(rows, "correlation"))
        | {"with_trial_mean": _where_repeated(rows, "correlation_with_trial_mean")},
        "noise_corrected_correlation": _where_repeated(rows, "noise_corrected_correlation"),
        "units": len(rows),
        "units_left_out": [
            {
                "session": row["session"],
                "unit": row["unit"],
                "why": "no spikes" if row["bins"] else "no valid bins",
            }
            for row in rows
            if not math.isfinite(row["bits_per_spike"])
        ],
        "spikes": int(_column(rows, "spikes").sum()),
    }


def summarize_sessions(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """One summary of each named session, also of one without units."""
    return [{"session": name} | summarize([row for row in rows if row["session"] == name]) for name in names]


def without_nan(value: Any) -> Any:
    """Returns the value with None for what JSON cannot say: NaN and infinities."""
    if isinstance(value, Mapping):
        return {name: without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return without_nan(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _column(rows, name):
    return np.asarray([row[name] for row in rows], np.float64)


def _statistics(values):
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return {"mean": None, "median": None, "interval": None}
    return {
        "mean": float(finite.mean()),
        "median": float(np.median(finite)),
        "interval": known_interval(metrics.bootstrap_interval(finite)),
    }


def _where_repeated(rows, name):
    values = _column(rows, name)
    number = int(np.isfinite(values).sum())
    return _statistics(values) | {"units": number} if number else None
