"""Rates on the time line of a session, and trials gathered by repeated bin."""

import numpy as np

from polarjax import data as data_module
from polarjax.core import SessionInfo
from polarjax.reports.predictions import SessionPrediction, predict_sessions, stack_repeats

from .fabricated import TINY_STATE, tiny_params, tiny_system


def session_prediction(**changes):
    bins, units = 12, 2
    fields = {
        "info": SessionInfo("one", "nobody", ("a", "b"), (0.1, 0.2), ((0.0, 0.0), (0.1, -0.1)), "", ""),
        "rate": np.arange(bins * units, dtype=np.float32).reshape(bins, units) + 1,
        "spikes": np.ones((bins, units), np.uint8),
        "scored": np.ones((bins, units), bool),
        "gaze": np.zeros((bins, 2), np.float32),
        "trial": np.repeat([0, 1, 2], 4),
        "repeat": None,
        "true_rate": None,
    }
    return SessionPrediction(**fields | changes)


def test_every_bin_with_history_is_predicted_once_where_the_segment_has_it(tiny_config, tiny_data):
    params = tiny_params(tiny_data.info)
    system = tiny_system(None, None)
    predictions = predict_sessions(tiny_config, system, tiny_data, params, TINY_STATE, tier=2)
    burn_in = tiny_config.data.burn_in
    for prediction, session in zip(predictions, tiny_data.sessions, strict=True):
        in_trial = np.concatenate([np.arange(n) for n in np.unique(session.trial, return_counts=True)[1]])
        expected = (session.tier == 2) & (in_trial >= burn_in)
        np.testing.assert_array_equal(prediction.scored.any(axis=1), expected)
        assert prediction.scored[expected].all()
        assert (prediction.rate[expected] > 0).all()
        assert (prediction.rate[~expected] == 0).all()
        np.testing.assert_array_equal(prediction.spikes, session.spikes)


def test_sessions_that_are_streamed_from_disk_are_predicted_as_those_on_the_device(tiny_config, tiny_data):
    config = tiny_config.copy_and_resolve_references()
    config.data.storage = "streamed"
    streamed, params = data_module.build(config.data), tiny_params(tiny_data.info)
    try:
        rest = (params, TINY_STATE, 2)
        both = [
            predict_sessions(config, tiny_system(None, None), data, *rest) for data in (tiny_data, streamed)
        ]
    finally:
        streamed.close()
    for resident, other in zip(*both, strict=True):
        assert resident.scored.any()
        np.testing.assert_array_equal(resident.scored, other.scored)
        np.testing.assert_array_equal(resident.rate, other.rate)


def test_a_rate_is_at_the_bin_of_the_frame_that_caused_it(tiny_config, tiny_data):
    params = tiny_params(tiny_data.info)
    system = tiny_system(None, None)
    predictions = predict_sessions(tiny_config, system, tiny_data, params, TINY_STATE, tier=1)
    request = next(iter(tiny_data.evaluation(1, 8)))
    batch = tiny_data.fetch(tiny_data.resident, request)
    contrast = np.abs(np.asarray(batch.stimulus)).mean(axis=(2, 3, 4))
    for example in range(2):
        frame = int(request["start"][example]) + 8
        expected = np.exp(params["readout"]["bias"][example, 0] + contrast[example, 8] - 0.2)
        np.testing.assert_allclose(predictions[example].rate[frame, 0], expected, rtol=1e-5)


def test_repeats_are_gathered_trial_by_trial():
    repeat = np.array([5, 6, -1, -1, 5, 6, 7, -1, 5, -1, 7, -1], np.int32)
    prediction = session_prediction(repeat=repeat)
    rate, spikes, valid = stack_repeats(prediction)
    assert rate.shape == spikes.shape == valid.shape == (3, 3, 2)
    np.testing.assert_array_equal(rate[:, 0, 0], prediction.rate[[0, 4, 8], 0])
    np.testing.assert_array_equal(rate[:2, 1, 1], prediction.rate[[1, 5], 1])
    np.testing.assert_array_equal(valid[..., 0].sum(axis=0), [3, 2, 2])


def test_bins_that_are_not_scored_are_no_trials():
    repeat = np.array([5, 6, -1, -1] * 3, np.int32)
    scored = np.ones((12, 2), bool)
    scored[4] = False
    scored[1, 0] = False
    _, _, valid = stack_repeats(session_prediction(repeat=repeat, scored=scored))
    np.testing.assert_array_equal(valid.sum(axis=0), [[2, 2], [2, 3]])


def test_a_session_without_repeats_gives_nothing_to_gather():
    assert stack_repeats(session_prediction()) is None
    assert stack_repeats(session_prediction(repeat=np.full(12, -1, np.int32))) is None
