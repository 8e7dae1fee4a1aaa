"""Metrics against the recorded reference, plain loops and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import metrics


@pytest.fixture(scope="module")
def bits(golden):
    return golden("polar/bps")


@pytest.fixture(scope="module")
def trials(golden):
    return golden("polar/ccnorm")


def simulated(bins=400, units=5, seed=0):
    generator = np.random.default_rng(seed)
    rate = np.exp(generator.normal(-1.5, 0.7, (bins, units)))
    return rate, generator.poisson(rate).astype(np.float64), generator.random((bins, units)) > 0.2


def loop_bits_per_spike(rate, spikes, valid, null_rate=None):
    values = []
    for unit in range(rate.shape[1]):
        scored = [bin_ for bin_ in range(rate.shape[0]) if valid[bin_, unit]]
        number = sum(spikes[bin_, unit] for bin_ in scored)
        if not scored or number == 0:
            values.append(math.nan)
            continue
        null = number / len(scored) if null_rate is None else null_rate[unit]
        gain = sum(
            spikes[bin_, unit] * math.log((rate[bin_, unit] + 1e-8) / (null + 1e-8)) - rate[bin_, unit] + null
            for bin_ in scored
        )
        values.append(gain / number / math.log(2))
    return np.array(values)


def test_bits_per_spike_equal_the_reference_for_units_with_spikes(bits):
    for name, valid in (
        ("bps", bits["dfs"]),
        ("bps_nomask", np.ones_like(bits["dfs"])),
        ("bps_mask1d", np.broadcast_to(bits["dfs"][:, :1], bits["dfs"].shape)),
    ):
        ours = metrics.bits_per_spike(bits["rhat"], bits["robs"], valid)
        has_spikes = (bits["robs"] * valid).sum(axis=0) > 0
        np.testing.assert_array_equal(np.isnan(ours), ~has_spikes)
        np.testing.assert_allclose(ours[has_spikes], bits[f"{name}.f64"][has_spikes], rtol=1e-9, atol=1e-12)


def test_a_unit_without_spikes_is_nan_where_the_reference_divides_by_one(bits):
    ours = metrics.bits_per_spike(bits["rhat"], bits["robs"], bits["dfs"])
    silent, masked = 3, 4
    assert np.isnan(ours[[silent, masked]]).all()
    loss_of_silent = bits["rhat"][:, silent].astype(np.float64) * bits["dfs"][:, silent]
    reference = (1.0 - loss_of_silent.sum()) / math.log(2)
    np.testing.assert_allclose(reference, bits["bps.f64"][silent], rtol=1e-6)
    assert bits["bps.f64"][masked] == 0


def test_the_reference_score_of_a_data_set_is_the_mean_of_what_is_above_zero(bits):
    ours = metrics.bits_per_spike(bits["rhat"], bits["robs"], bits["dfs"])
    score = np.maximum(np.nan_to_num(ours), 0).mean()
    np.testing.assert_allclose(score, bits["val_bps_dataset"], rtol=1e-5)


@pytest.mark.parametrize("train_null", [False, True])
def test_bits_per_spike_equal_a_loop_over_bins(train_null):
    rate, spikes, valid = simulated()
    null = np.array([0.1, 0.2, 0.3, 0.4, 0.5]) if train_null else None
    ours = metrics.bits_per_spike(rate, spikes, valid, null)
    np.testing.assert_allclose(ours, loop_bits_per_spike(rate, spikes, valid, null), rtol=1e-10)


def test_the_training_null_gives_more_bits_than_the_null_of_the_evaluated_split():
    rate, spikes, valid = simulated()
    own = metrics.bits_per_spike(rate, spikes, valid)
    assert np.all(metrics.bits_per_spike(rate, spikes, valid, np.full(5, 0.7)) > own)


def test_sums_over_batches_give_the_numbers_of_the_whole_split():
    rate, spikes, valid = simulated()
    parts = [
        metrics.poisson_sums(
            jnp.log(jnp.asarray(rate[part], jnp.float32)).reshape(4, 25, 5),
            jnp.asarray(spikes[part], jnp.float32).reshape(4, 25, 5),
            jnp.asarray(valid[part], jnp.float32).reshape(4, 25, 5),
        )
        for part in (slice(0, 100), slice(100, 200), slice(200, 300), slice(300, 400))
    ]
    sums = jax.tree.map(lambda *leaves: sum(np.asarray(leaf, np.float64) for leaf in leaves), *parts)
    np.testing.assert_allclose(
        metrics.bits_per_spike_from_sums(sums), metrics.bits_per_spike(rate, spikes, valid), atol=1e-5
    )
    np.testing.assert_allclose(
        metrics.correlation_from_sums(sums), metrics.correlation(rate, spikes, valid), atol=1e-5
    )


def test_masked_bins_may_hold_anything():
    rate, spikes, valid = simulated()
    dirty_rate, dirty_spikes = np.where(valid, rate, np.nan), np.where(valid, spikes, np.inf)
    np.testing.assert_array_equal(
        metrics.bits_per_spike(dirty_rate, dirty_spikes, valid), metrics.bits_per_spike(rate, spikes, valid)
    )
    np.testing.assert_array_equal(
        metrics.correlation(dirty_rate, dirty_spikes, valid), metrics.correlation(rate, spikes, valid)
    )
    sums = metrics.poisson_sums(
        jnp.asarray(dirty_rate, jnp.float32)[None],
        jnp.asarray(dirty_spikes, jnp.float32)[None],
        jnp.asarray(valid, jnp.float32)[None],
    )
    assert all(np.isfinite(value).all() for value in sums.values())


def test_correlation_equals_numpy_and_is_nan_for_a_constant():
    rate, spikes, valid = simulated()
    rate[:, 4] = 0.2
    ours = metrics.correlation(rate, spikes, valid)
    for unit in range(4):
        kept = valid[:, unit]
        np.testing.assert_allclose(
            ours[unit], np.corrcoef(rate[kept, unit], spikes[kept, unit])[0, 1], rtol=1e-10
        )
    assert np.isnan(ours[4])
    arrays = (jnp.log(jnp.asarray(rate, jnp.float32)), jnp.asarray(spikes, jnp.float32), jnp.ones((400, 5)))
    sums = metrics.poisson_sums(*(array[None] for array in arrays))
    assert np.isnan(metrics.correlation_from_sums(sums)[4])


def test_noise_corrected_correlation_equals_the_reference(trials):
    valid = trials["D"]
    for name, options in (
        ("cc_default.f64", {"ddof": 0}),
        ("cc_strict.f64", {"ddof": 0, "min_trials": 30, "min_bins": 60}),
        ("cc_ddof1.f64", {"ddof": 1, "covariance_ddof": 0}),
    ):
        ours = metrics.noise_corrected_correlation(trials["P"], trials["R"], valid, **options)
        np.testing.assert_allclose(ours, trials[name], rtol=1e-9, err_msg=name)
    ours = metrics.noise_corrected_correlation(trials["P"], trials["R"], ~np.isnan(trials["R"]), ddof=0)
    np.testing.assert_allclose(ours, trials["cc_nomask.f64"], rtol=1e-9)


def test_noise_corrected_correlation_of_the_true_rate_is_one_and_the_plain_one_is_below():
    generator = np.random.default_rng(3)
    rate = np.exp(generator.normal(-1.0, 0.5, (400, 3)))
    response = generator.poisson(np.broadcast_to(rate, (30, 400, 3))).astype(float)
    prediction, valid = np.broadcast_to(rate, response.shape), np.ones(response.shape, bool)
    corrected = metrics.noise_corrected_correlation(prediction, response, valid)
    plain = metrics.trial_mean_correlation(prediction, response, valid)
    np.testing.assert_allclose(corrected, 1.0, atol=0.03)
    np.testing.assert_allclose(
        plain, [np.corrcoef(rate[:, i], response.mean(axis=0)[:, i])[0, 1] for i in range(3)], rtol=1e-10
    )
    assert np.all(plain < corrected)


def test_too_few_trials_or_bins_give_nan(trials):
    few = {"min_trials": 41}, {"min_bins": 81}
    for options in few:
        ours = metrics.noise_corrected_correlation(trials["P"], trials["R"], trials["D"], **options)
        assert np.isnan(ours).all()


def test_bootstrap_interval_covers_the_mean_and_repeats_with_its_seed():
    values = np.append(np.random.default_rng(1).normal(0.4, 0.2, 200), np.nan)
    low, high = metrics.bootstrap_interval(values, seed=5)
    assert low < np.nanmean(values) < high
    standard_error = np.nanstd(values) / np.sqrt(200)
    np.testing.assert_allclose(high - low, 2 * 1.96 * standard_error, rtol=0.1)
    assert metrics.bootstrap_interval(values, seed=5) == (low, high)
    assert all(math.isnan(bound) for bound in metrics.bootstrap_interval(np.full(3, np.nan)))


def test_one_unit_has_no_interval_over_units():
    assert all(math.isnan(bound) for bound in metrics.bootstrap_interval(np.asarray([0.3, np.nan])))
