"""Saccades in a made gaze, and the average around them."""

import numpy as np

from polarjax.reports.saccades import saccade_onsets, saccade_triggered_average

from .test_predictions import session_prediction

RATE_HZ = 100.0


def gaze_with_steps(frames, length=400):
    gaze = np.zeros((length, 2), np.float32)
    for frame in frames:
        gaze[frame:, 0] += 1.0
    return gaze


def test_a_step_of_a_degree_is_found_at_its_frame():
    onsets = saccade_onsets(gaze_with_steps([50, 200]), np.zeros(400, np.int64), RATE_HZ)
    np.testing.assert_array_equal(onsets, [50, 200])


def test_drift_steps_between_trials_and_the_end_of_a_saccade_are_not_onsets():
    gaze = gaze_with_steps([52, 200])
    gaze[:, 1] += np.linspace(0, 4, 400)
    gaze[50:, 0] += 1.0
    trial = np.repeat([0, 1], 200)
    np.testing.assert_array_equal(saccade_onsets(gaze, trial, RATE_HZ), [50])
    assert saccade_onsets(np.zeros((1, 2), np.float32), np.zeros(1, np.int64), RATE_HZ).size == 0


def test_the_average_finds_a_response_at_its_delay():
    length, onsets = 4000, np.arange(100, 3900, 100)
    spikes = np.ones((length, 2))
    spikes[onsets + 5] = 11.0
    prediction = session_prediction(
        rate=np.full((length, 2), 1.1, np.float32),
        spikes=spikes,
        scored=np.ones((length, 2), bool),
        gaze=gaze_with_steps(onsets, length),
        trial=np.zeros(length, np.int64),
        true_rate=spikes,
    )
    number, average = saccade_triggered_average([prediction], RATE_HZ)
    assert number == len(onsets)
    mean = spikes[:, 0].mean()
    assert average["time_ms"][np.argmax(average["data"])] == 50
    np.testing.assert_allclose(average["data"].max(), 11 / mean, rtol=1e-6)
    np.testing.assert_allclose(average["model"], 1.1 / mean, rtol=1e-6)
    np.testing.assert_allclose(average["oracle"], average["data"])
    np.testing.assert_allclose(average["error"], 0, atol=1e-12)


def test_without_saccades_the_average_is_empty():
    number, _ = saccade_triggered_average([session_prediction()], RATE_HZ)
    assert number == 0
