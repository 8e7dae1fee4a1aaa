"""How well predicted rates explain counts: bits per spike, correlations, intervals over units.

`poisson_sums` runs on the device and its sums add over batches; everything else is NumPy in float64, [T, N] or [N].
A unit for which a number cannot be computed is NaN, never 0, so that it can be left out of a mean and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

RATE_FLOOR = 1e-8


def poisson_sums(
    log_rate: Float[Array, "B n *N"], spikes: Float[Array, "B n *N"], valid: Float[Array, "B n *N"]
) -> dict[str, Float[Array, "*N"]]:
    """Sums over the batch and its bins, the first two axes, from which bits per spike and correlation follow.

    Args:
      log_rate: log spikes/bin; may be anything where `valid` is 0.
      spikes: counts per bin; may be anything where `valid` is 0.
      valid: 1 where a bin is scored, else 0.

    Returns:
      bins, spikes, log_likelihood (nats, without log y!), rate, rate_squared, spikes_squared, rate_times_spikes.
    """
    scored = valid > 0
    rate = jnp.where(scored, jnp.exp(jnp.where(scored, log_rate, 0.0)), 0.0)
    counts = jnp.where(scored, spikes, 0.0)
    terms = {
        "bins": scored.astype(rate.dtype),
        "spikes": counts,
        "log_likelihood": counts * jnp.log(rate + RATE_FLOOR) - rate,
        "rate": rate,
        "rate_squared": rate * rate,
        "spikes_squared": counts * counts,
        "rate_times_spikes": rate * counts,
    }
    return {name: jnp.sum(term, axis=(0, 1)) for name, term in terms.items()}


def bits_per_spike_from_sums(sums: Mapping[str, Any], null_rate: Any = None) -> Float[np.ndarray, "*N"]:
    """Bits per spike of every unit over a model that predicts a constant rate.

        BPS_n = sum_t d [(y log(r + 1e-8) - r) - (y log(rbar + 1e-8) - rbar)] / (N_n ln 2)

    Args:
      sums: sums of `poisson_sums`, added over a split.
      null_rate: rbar, N mean counts per bin of the training split; None takes N_n/T_n of the evaluated split.

    Returns:
      N numbers; NaN for a unit without a spike or without a valid bin.

    Source: Pillow et al. 2008; the evaluated split's null is VisionCore's.
    """
    bins, spikes = (np.asarray(sums[name], np.float64) for name in ("bins", "spikes"))
    usable = (bins > 0) & (spikes > 0)
    own_rate = spikes / np.where(usable, bins, 1.0)
    null = own_rate if null_rate is None else np.asarray(null_rate, np.float64)
    gain = np.asarray(sums["log_likelihood"], np.float64) - (spikes * np.log(null + RATE_FLOOR) - bins * null)
    return np.where(usable, gain / (np.where(usable, spikes, 1.0) * np.log(2.0)), np.nan)


def bits_per_spike(
    rate: Num[np.ndarray, "T N"],
    spikes: Num[np.ndarray, "T N"],
    valid: Num[np.ndarray, "T N"] | Bool[np.ndarray, "T N"],
    null_rate: Any = None,
) -> Float[np.ndarray, " N"]:
    """Bits per spike of rates in spikes/bin; see `bits_per_spike_from_sums`.

    Args:
      rate: spikes/bin, >= 0; may be anything where `valid` is 0.
    """
    scored = np.asarray(valid) > 0
    rates = np.where(scored, rate, 0.0).astype(np.float64)
    counts = np.where(scored, spikes, 0.0).astype(np.float64)
    log_likelihood = np.sum(counts * np.log(rates + RATE_FLOOR) - rates, axis=0)
    sums = {"bins": scored.sum(axis=0), "spikes": counts.sum(axis=0), "log_likelihood": log_likelihood}
    return bits_per_spike_from_sums(sums, null_rate)


def correlation_from_sums(sums: Mapping[str, Any]) -> Float[np.ndarray, "*N"]:
    """Pearson correlation of rate and count over the scored bins, from the sums of `poisson_sums`.

    Returns:
      N numbers; NaN where a side varies by less than the rounding of float32 sums.
    """
    total = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    bins = np.maximum(total["bins"], 1.0)
    rate, spikes = total["rate"] / bins, total["spikes"] / bins
    covariance = total["rate_times_spikes"] / bins - rate * spikes
    rate_variance = total["rate_squared"] / bins - rate**2
    spikes_variance = total["spikes_squared"] / bins - spikes**2
    varies = (rate_variance > 1e-6 * rate**2) & (spikes_variance > 1e-6 * spikes**2)
    return np.where(varies, _ratio(covariance, np.maximum(rate_variance * spikes_variance, 0.0)), np.nan)


def correlation(
    first: Num[np.ndarray, "T N"],
    second: Num[np.ndarray, "T N"],
    valid: Num[np.ndarray, "T N"] | Bool[np.ndarray, "T N"],
) -> Float[np.ndarray, " N"]:
    """Pearson correlation of every unit over the bins where `valid` is not 0; NaN where one side does not vary."""
    scored = np.asarray(valid) > 0
    bins = np.maximum(scored.sum(axis=0), 1)

    def centred(values):
        values = np.where(scored, values, 0.0).astype(np.float64)
        return np.where(scored, values - (values.sum(axis=0) / bins)[None], 0.0)

    first, second = centred(first), centred(second)
    return _ratio((first * second).sum(axis=0), (first**2).sum(axis=0) * (second**2).sum(axis=0))


def trial_mean_correlation(
    prediction: Num[np.ndarray, "R K N"], response: Num[np.ndarray, "R K N"], valid: Bool[np.ndarray, "R K N"]
) -> Float[np.ndarray, " N"]:
    """Correlation over K repeated stimulus bins of the predicted mean over trials with the mean count over trials.

    Args:
      prediction: spikes/bin of R trials.
      response: counts of R trials.
      valid: which trials of a bin exist; the rest may hold anything.
    """
    number = valid.sum(axis=0)
    mean_prediction, mean_response = _trial_mean(prediction, valid), _trial_mean(response, valid)
    return correlation(mean_prediction, mean_response, number > 0)


def noise_corrected_correlation(
    prediction: Num[np.ndarray, "R K N"],
    response: Num[np.ndarray, "R K N"],
    valid: Bool[np.ndarray, "R K N"],
    *,
    ddof: int = 1,
    covariance_ddof: int | None = None,
    min_trials: int = 20,
    min_bins: int = 20,
) -> Float[np.ndarray, " N"]:
    """Correlation with the part of the trial mean that is signal and not noise.

        CC = cov_t(ybar, pbar) / sqrt(var_t(pbar) SP),   SP = var_t(ybar) - mean_t(s2_t / n_t)

    Args:
      prediction: spikes/bin of R trials.
      response: counts of R trials.
      valid: which trials of a bin exist; the rest may hold anything.
      ddof: of the variances over trials and over bins. 0 makes the noise term too small by (n-1)/n.
      covariance_ddof: of the covariance over bins; None takes `ddof`. VisionCore takes 0 whatever `ddof` is.
      min_trials: bins with fewer valid trials are left out; at least ddof + 1.
      min_bins: units with fewer such bins are NaN.

    Returns:
      N numbers, which may pass 1 by noise; NaN where the signal power SP is not positive.

    Source: Schoppe et al. 2016, eq. 8 and 9.
    """
    number = valid.sum(axis=0)
    good = number >= max(min_trials, ddof + 1)
    bins = good.sum(axis=0)
    mean_response, mean_prediction = _trial_mean(response, valid), _trial_mean(prediction, valid)
    squares = (np.where(valid, response - mean_response[None], 0.0) ** 2).sum(axis=0)
    noise = squares / np.maximum(number - ddof, 1) / np.maximum(number, 1)

    def moment(values, degrees):
        return np.where(good, values, 0.0).sum(axis=0) / np.maximum(bins - degrees, 1)

    response_offset = mean_response - moment(mean_response, 0)[None]
    prediction_offset = mean_prediction - moment(mean_prediction, 0)[None]
    signal_power = moment(response_offset**2, ddof) - moment(noise, 0)
    covariance = moment(
        response_offset * prediction_offset, ddof if covariance_ddof is None else covariance_ddof
    )
    result = _ratio(covariance, moment(prediction_offset**2, ddof) * np.maximum(signal_power, 0.0))
    return np.where(bins >= min_bins, result, np.nan)


def bootstrap_interval(
    values: Num[np.ndarray, " N"], *, seed: int = 0, samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over units, drawn again with replacement.

    Args:
      values: one number a unit; NaN are left out.
      level: share of the means between the two bounds, in (0, 1).

    Returns:
      Lower and upper bound; NaN both where fewer than two units have a number, which tell nothing of their spread.

    Source: Efron 1979.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        return float("nan"), float("nan")
    chosen = np.random.default_rng(seed).integers(0, finite.size, (samples, finite.size))
    low, high = np.quantile(finite[chosen].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _trial_mean(values, valid):
    kept = np.where(valid, values, 0.0).astype(np.float64)
    return kept.sum(axis=0) / np.maximum(valid.sum(axis=0), 1)


def _ratio(covariance, product_of_variances):
    defined = product_of_variances > 1e-24
    return np.where(defined, covariance / np.sqrt(np.where(defined, product_of_variances, 1.0)), np.nan)
