"""What a report says of units: one row each, and all of them."""

import math

import numpy as np

from polarjax import metrics
from polarjax.reports import numbers

from .test_predictions import session_prediction


def made_prediction(bins=600, silent=False, seed=0, **changes):
    generator = np.random.default_rng(seed)
    rate = np.exp(generator.normal(-1, 0.6, (bins, 2))).astype(np.float32)
    spikes = generator.poisson(rate)
    if silent:
        spikes[:, 1] = 0
    fields = {
        "rate": rate,
        "spikes": spikes,
        "scored": np.ones((bins, 2), bool),
        "gaze": np.zeros((bins, 2), np.float32),
        "trial": np.zeros(bins, np.int64),
    }
    return session_prediction(**fields | changes)


def test_a_row_holds_the_metrics_of_its_unit():
    prediction = made_prediction()
    rows = numbers.unit_rows([prediction], 100.0)
    assert [row["unit"] for row in rows] == ["a", "b"]
    bits = metrics.bits_per_spike(prediction.rate, prediction.spikes, prediction.scored, np.array([0.1, 0.2]))
    assert [row["bits_per_spike"] for row in rows] == bits.tolist()
    assert rows[1]["mean_rate_hz"] == prediction.spikes[:, 1].mean() * 100
    assert math.isnan(rows[0]["oracle_bits_per_spike"])
    assert math.isnan(rows[0]["correlation_with_trial_mean"])


def test_the_fraction_of_the_oracle_is_one_for_the_true_rates():
    prediction = made_prediction()
    known = made_prediction(true_rate=prediction.rate)
    summary = numbers.summarize(numbers.unit_rows([known], 100.0))
    assert summary["oracle_fraction"] == 1
    assert summary["bits_per_spike"]["null"] == "train"
    assert summary["bits_per_spike"]["eval_null_mean"] < summary["bits_per_spike"]["mean"]
    assert numbers.summarize(numbers.unit_rows([prediction], 100.0))["oracle_fraction"] is None


def test_a_unit_without_spikes_is_left_out_and_named():
    rows = numbers.unit_rows([made_prediction(silent=True)], 100.0)
    summary = numbers.summarize(rows)
    assert summary["units"] == 2
    assert summary["units_left_out"] == [{"session": "one", "unit": "b", "why": "no spikes"}]
    assert summary["bits_per_spike"]["mean"] == rows[0]["bits_per_spike"]


def test_correlation_with_the_trial_mean_needs_repeats():
    rate = np.tile(np.exp(np.random.default_rng(1).normal(-0.5, 0.5, (60, 2))), (10, 1)).astype(np.float32)
    prediction = made_prediction(rate=rate, spikes=np.random.default_rng(2).poisson(rate))
    assert numbers.summarize(numbers.unit_rows([prediction], 100.0))["correlation"]["with_trial_mean"] is None
    repeated = made_prediction(
        rate=rate, spikes=prediction.spikes, repeat=np.tile(np.arange(60, dtype=np.int32), 10)
    )
    summary = numbers.summarize(numbers.unit_rows([repeated], 100.0))
    trial_mean = prediction.spikes.reshape(10, 60, 2).mean(axis=0)
    expected = [np.corrcoef(rate[:60, unit], trial_mean[:, unit])[0, 1] for unit in range(2)]
    np.testing.assert_allclose(summary["correlation"]["with_trial_mean"]["median"], np.median(expected))
    assert summary["noise_corrected_correlation"]["median"] > np.median(expected)


def test_repeats_under_new_eye_movements_have_no_noise_ceiling():
    rate = np.tile(np.exp(np.random.default_rng(1).normal(-0.5, 0.5, (60, 2))), (10, 1)).astype(np.float32)
    moving = np.random.default_rng(3).normal(0, 0.3, (600, 2)).astype(np.float32)
    repeat = np.tile(np.arange(60, dtype=np.int32), 10)
    spikes = np.random.default_rng(2).poisson(rate)
    prediction = made_prediction(rate=rate, spikes=spikes, repeat=repeat, gaze=moving)
    summary = numbers.summarize(numbers.unit_rows([prediction], 100.0))
    assert summary["correlation"]["with_trial_mean"] is not None
    assert summary["noise_corrected_correlation"] is None


def test_sessions_are_summarized_apart():
    rows = numbers.unit_rows([made_prediction()], 100.0)
    rows += [row | {"session": "two", "bits_per_spike": 2.0} for row in rows]
    sessions = numbers.summarize_sessions(rows, ["one", "two"])
    assert [entry["session"] for entry in sessions] == ["one", "two"]
    assert sessions[1]["bits_per_spike"]["mean"] == 2.0


def test_json_gets_null_for_nan():
    value = {"a": [float("nan"), 1.0], "b": np.float32(2.0), "c": np.array([np.inf])}
    assert numbers.without_nan(value) == {"a": [None, 1.0], "b": 2.0, "c": [None]}
