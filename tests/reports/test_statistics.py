"""Intervals over seeds, units and trials, each against a second way to compute it."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from polarjax import metrics
from polarjax.core import SessionInfo
from polarjax.reports import statistics
from polarjax.reports.predictions import SessionPrediction

INFO = SessionInfo("one", "a", ("x", "y", "z"), (0.2,) * 3, ((0.0, 0.0),) * 3, "", "")


def make_pair():
    """Two predictions of 600 bins in 12 trials of 50: a constant rate and the truth; the last unit never spikes."""
    random = np.random.default_rng(0)
    truth = np.exp(random.normal(-2, 1, (600, 3))).astype(np.float32)
    spikes = random.poisson(truth) * np.asarray([1, 1, 0])
    shared = {"spikes": spikes, "gaze": np.zeros((600, 2)), "trial": np.repeat(np.arange(12), 50)}
    return [
        SessionPrediction(INFO, rate, scored=random.random((600, 3)) < 0.9, repeat=None, true_rate=None, **shared)
        for rate in (np.full_like(truth, truth.mean()), truth)
    ]  # fmt: skip


def test_the_interval_over_seeds_is_that_of_scipy():
    values = [0.61, 0.64, 0.66, 0.59]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert statistics.t_interval(values) == pytest.approx(expected, rel=1e-12)


def test_one_seed_tells_nothing_of_the_spread():
    assert all(map(math.isnan, statistics.t_interval([0.6])))
    assert statistics.t_interval([0.5, 0.5]) == (0.5, 0.5)


def test_a_paired_difference_is_free_of_what_units_share():
    random = np.random.default_rng(1)
    level = random.normal(0.5, 2.0, 40)
    reference = level + random.normal(0, 0.01, (3, 40))
    values = reference + 0.1
    values[0, 5] = np.nan
    found = statistics.paired_difference(values, reference)
    assert np.flatnonzero(np.isnan(found.units)).tolist() == [5]
    np.testing.assert_allclose(np.delete(found.units, 5), 0.1)
    np.testing.assert_allclose(found.each, [0.1] * 3)
    assert found.over_units == pytest.approx((0.1, 0.1))
    assert found.over_seeds == pytest.approx((0.1, 0.1))


def test_what_a_seed_moves_together_is_in_the_interval_over_seeds_alone():
    random = np.random.default_rng(4)
    luck = np.asarray([-0.04, 0.01, 0.06])
    reference = random.normal(0.5, 0.2, (3, 40))
    values = reference + luck[:, None] + random.normal(0, 0.001, (3, 40))
    found = statistics.paired_difference(values, reference)
    assert found.over_units[0] > 0
    assert found.over_seeds == pytest.approx(stats.ttest_1samp(found.each, 0).confidence_interval(0.95))
    assert found.over_seeds[0] < 0
    one = statistics.paired_difference(values[:1], reference[:1])
    assert np.isfinite(one.over_units).all() and np.isnan(one.over_seeds).all()
    assert np.isnan(statistics.paired_difference(values[:0], reference[:0]).units).all()


def test_the_gains_of_all_trials_are_the_difference_in_bits_per_spike():
    left, right = make_pair()
    gain, spikes = statistics.trial_gains(left, right, 120.0)
    difference, low, high = statistics.gain_interval(gain, spikes)
    both = left.scored & right.scored
    bits = [metrics.bits_per_spike(side.rate, side.spikes, both, (0.2,) * 3) for side in (left, right)]
    np.testing.assert_allclose(difference, bits[1] - bits[0])
    assert gain.shape == (12, 3)
    assert np.isnan([difference[2], low[2], high[2]]).all()
    assert (low < difference)[:2].all() and (difference < high)[:2].all()
    assert (low[:2] > 0).all()


def test_the_interval_over_trials_is_that_of_drawing_them_one_by_one():
    random = np.random.default_rng(2)
    gain, spikes = random.normal(2, 5, (30, 2)), random.poisson(9, (30, 2)).astype(float)
    _, low, high = statistics.gain_interval(gain, spikes, samples=4000)
    chosen = random.integers(0, 30, (4000, 30))
    bits = gain[chosen].sum(axis=1) / spikes[chosen].sum(axis=1) / np.log(2)
    np.testing.assert_allclose([low, high], np.quantile(bits, [0.025, 0.975], axis=0), atol=0.05)


def test_a_model_against_itself_gains_nothing():
    left, _ = make_pair()
    difference, low, high = statistics.gain_interval(*statistics.trial_gains(left, left, 120.0))
    np.testing.assert_array_equal([difference[:2], low[:2], high[:2]], 0.0)


def test_few_trials_are_cut_into_blocks_of_a_second():
    left, _ = make_pair()
    few = dataclasses.replace(left, trial=np.repeat([4, 7], 300))
    groups = statistics.trial_groups(few, 120.0)
    np.testing.assert_array_equal(np.unique(groups, return_counts=True)[1], [120, 120, 60] * 2)
    np.testing.assert_array_equal(statistics.trial_groups(left, 120.0), left.trial)


def show_again(prediction):
    """The same trials twice, the second time as presentations of their own: the same counts, the same rates."""
    twice = {
        name: np.concatenate([getattr(prediction, name)] * 2) for name in ("rate", "spikes", "scored", "gaze")
    }
    trial = np.concatenate([prediction.trial, prediction.trial + 100])
    return dataclasses.replace(prediction, **twice, trial=trial, repeat=np.tile(np.arange(600), 2))


def test_showing_every_trial_again_makes_no_interval_smaller():
    sides = make_pair()
    once = statistics.gain_interval(*statistics.trial_gains(*sides, 120.0))
    again = statistics.gain_interval(*statistics.trial_gains(*map(show_again, sides), 120.0))
    np.testing.assert_allclose(again, once)
    alone = [dataclasses.replace(show_again(side), repeat=None) for side in sides]
    _, low, high = statistics.gain_interval(*statistics.trial_gains(*alone, 120.0))
    assert ((high - low)[:2] < 0.85 * (once[2] - once[1])[:2]).all()


def test_trials_that_share_a_repeated_bin_are_one_group_also_by_way_of_a_third():
    left, _ = make_pair()
    repeat = np.full(600, -1)
    for trial, bin_number, number in ((1, 49, 7), (4, 49, 7), (4, 20, 9), (6, 20, 9), (8, 3, 2)):
        repeat[50 * trial + bin_number] = number
    few = statistics.trial_groups(dataclasses.replace(left, repeat=repeat), 120.0)
    np.testing.assert_array_equal(few[::50], [0, 1, 2, 3, 1, 4, 1, 5, 6, 7, 8, 9])
    assert (few.reshape(12, 50) == few[::50, None]).all()


def test_blocks_of_few_repeated_trials_are_joined_by_their_repeats():
    left, _ = make_pair()
    repeat = np.tile(np.arange(300), 2)
    few = dataclasses.replace(left, trial=np.repeat([4, 7], 300), repeat=repeat)
    groups = statistics.trial_groups(few, 120.0)
    np.testing.assert_array_equal(groups, np.tile(np.repeat([0, 1, 2], [120, 120, 60]), 2))


def test_fewer_than_five_groups_have_no_interval():
    random = np.random.default_rng(3)
    gain, spikes = random.normal(2, 5, (5, 2)), random.poisson(9, (5, 2)) + 1.0
    assert np.isfinite(statistics.gain_interval(gain, spikes)).all()
    gain[2, 1] = spikes[2, 1] = 0
    difference, low, high = statistics.gain_interval(gain, spikes)
    assert np.isfinite(difference).all()
    assert np.isnan([low, high]).tolist() == [[False, True]] * 2
    assert np.isnan(statistics.gain_interval(gain[:1], spikes[:1])[1:]).all()
    assert statistics.known_interval((math.nan, math.nan)) is None
