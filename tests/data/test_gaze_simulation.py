import pathlib

import numpy as np
import pytest
from scipy.signal import welch

from polarjax.data import gaze_simulation
from polarjax.data.gaze_simulation import simulate_gaze

RATE_HZ = 120.0
REAL_GAZE = (
    pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "marmoset_fixation_gaze_120hz.npz"
)
ARCMIN2 = 1.0 / 3600.0


def find_microsaccades(gaze):
    """Engbert & Kliegl (2003): velocity over three samples beyond six robust deviations; first, last, amplitude."""
    velocity = np.zeros_like(gaze)
    velocity[1:-1] = (gaze[2:] - gaze[:-2]) * RATE_HZ / 2
    spread = np.sqrt(np.median(velocity**2, 0) - np.median(velocity, 0) ** 2)
    fast = ((velocity / (6 * spread)) ** 2).sum(1) > 1
    edges = np.diff(np.concatenate([[0], fast.astype(int), [0]]))
    events = []
    for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if last - first >= 2 and first >= 3 and last + 3 <= len(gaze):
            step = gaze[last : last + 3].mean(0) - gaze[first - 3 : first].mean(0)
            events.append((first, last, np.linalg.norm(step)))
    return events


def spectrum(pieces, length):
    """Mean power spectral density over pieces of at least `length` frames, x and y added, deg^2/Hz."""
    densities = [
        welch(p, RATE_HZ, nperseg=length, axis=0, detrend="constant") for p in pieces if len(p) >= length
    ]
    return densities[0][0], np.mean([density.sum(1) for _, density in densities], axis=0)


def drift_pieces(trials, length=48):
    for gaze in trials:
        busy = np.zeros(len(gaze), bool)
        for first, last, _ in find_microsaccades(gaze):
            busy[max(first - 6, 0) : last + 6] = True
        for start in range(0, len(gaze) - length, length):
            if not busy[start : start + length].any():
                yield gaze[start : start + length]


def speeds(trials):
    return np.concatenate([np.linalg.norm(np.diff(gaze, axis=0), axis=1) * RATE_HZ for gaze in trials])


def fixations(n_trials, **options):
    rng = np.random.default_rng(0)
    return [
        simulate_gaze(rng, 240, RATE_HZ, 1.0, fixation_s=np.inf, **options).astype(float)
        for _ in range(n_trials)
    ]


def test_same_seed_gives_the_same_gaze_and_another_seed_another():
    first, again, other = (
        simulate_gaze(np.random.default_rng(seed), 300, RATE_HZ, 4.0) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert first.dtype == np.float32 and first.shape == (300, 2)


def test_gaze_stays_inside_the_field_and_explores_it():
    rng = np.random.default_rng(1)
    gaze = np.concatenate([simulate_gaze(rng, 480, RATE_HZ, 4.0) for _ in range(60)])
    assert np.abs(gaze).max() <= 4.0
    assert np.all(gaze.std(0) > 1.0)


def test_one_frame_is_enough():
    assert simulate_gaze(np.random.default_rng(0), 1, RATE_HZ, 4.0).shape == (1, 2)


@pytest.mark.parametrize("diffusion", [4 * ARCMIN2, 20 * ARCMIN2])
def test_drift_spreads_as_brownian_motion_of_the_stated_diffusion_constant(diffusion):
    rng = np.random.default_rng(2)
    paths = np.stack([gaze_simulation.simulate_drift(rng, 240, RATE_HZ, diffusion) for _ in range(1500)])
    late, early = ((paths[:, frame] ** 2).sum(-1).mean() for frame in (239, 119))
    assert (late - early) / (4 * 120 / RATE_HZ) == pytest.approx(diffusion, rel=0.1)


def test_drift_is_smoother_than_a_random_walk():
    path = gaze_simulation.simulate_drift(np.random.default_rng(0), 20_000, RATE_HZ, 20 * ARCMIN2)
    velocity = np.diff(path, axis=0)
    correlation = (velocity[1:] * velocity[:-1]).sum() / (velocity**2).sum()
    expected = np.exp(-1 / (RATE_HZ * gaze_simulation.DRIFT_CORRELATION_S))
    assert correlation == pytest.approx(expected, abs=0.02)


def test_peak_speed_saturates_with_amplitude_and_equals_the_speed_of_the_profile():
    amplitude = np.array([0.01, 0.3, 2.0, 8.0, 100.0])
    peak = gaze_simulation.peak_speed(amplitude)
    assert peak[0] / amplitude[0] == pytest.approx(100, rel=0.01)
    assert peak[-1] == pytest.approx(900, rel=0.01)
    assert np.all(np.diff(peak / amplitude) < 0)
    for size, top in zip(amplitude, peak, strict=True):
        duration = gaze_simulation.saccade_duration(size)
        seconds = np.linspace(-0.1 * duration, 1.1 * duration, 5001)
        path = size * gaze_simulation.minimum_jerk(seconds / duration)
        assert path[0] == 0 and path[-1] == pytest.approx(size)
        assert np.gradient(path, seconds).max() == pytest.approx(top, rel=1e-3)


def test_simulated_saccades_lie_on_the_main_sequence():
    rng = np.random.default_rng(5)
    trials = [simulate_gaze(rng, 4000, 1000.0, 4.0, diffusion=1e-9) for _ in range(20)]
    checked = 0
    for gaze in trials:
        speed = np.linalg.norm(np.diff(gaze.astype(float), axis=0), axis=1) * 1000
        edges = np.flatnonzero(np.diff((speed > 1.0).astype(int)))
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            if speed[first + 1] > 1.0:
                amplitude = np.linalg.norm(gaze[last + 1] - gaze[first])
                assert speed[first:last].max() == pytest.approx(
                    gaze_simulation.peak_speed(float(amplitude)), rel=0.06
                )
                checked += 1
    assert checked > 200


def test_saccades_follow_each_other_after_250_to_500_ms():
    rng = np.random.default_rng(6)
    onsets = []
    for _ in range(40):
        fast = np.flatnonzero(speeds([simulate_gaze(rng, 960, RATE_HZ, 4.0, microsaccade_rate_hz=1e-6)]) > 15)
        onsets.append(np.diff(fast[np.diff(fast, prepend=-9) > 3]) / RATE_HZ)
    intervals = np.concatenate(onsets)
    assert np.median(intervals) == pytest.approx(0.38, abs=0.04)
    assert np.mean((intervals > 0.2) & (intervals < 0.6)) > 0.9


def test_microsaccades_come_once_or_twice_a_second_and_are_smaller_than_a_degree():
    trials = fixations(150)
    amplitude = np.array([event[2] for gaze in trials for event in find_microsaccades(gaze)])
    assert 0.8 < len(amplitude) / (150 * 2.0) < 2.0
    assert 0.3 < np.median(amplitude) < 0.5
    assert np.quantile(amplitude, 0.02) > 0.1 and np.quantile(amplitude, 0.98) < 1.0


def test_microsaccades_bring_a_fixating_eye_back():
    gaze = np.stack([path - path[0] for path in fixations(150)])
    assert np.linalg.norm(gaze[:, 120:], axis=-1).mean() < 0.6


@pytest.mark.skipif(not REAL_GAZE.exists(), reason="the recorded gaze lies beside the project, not in it")
def test_simulated_fixation_matches_gaze_recorded_from_marmosets():
    with np.load(REAL_GAZE, allow_pickle=False) as file:
        gaze, offsets = file["gaze_deg"].astype(float), file["offsets"]
    real = [gaze[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    simulated = fixations(400, diffusion=4 * ARCMIN2)
    noise = np.random.default_rng(1)
    noisy = [path + noise.normal(0, 0.027, path.shape) for path in simulated]
    rates, amplitudes = [], []
    for trials in (real, noisy):
        events = [event[2] for path in trials for event in find_microsaccades(path)]
        rates.append(len(events) * RATE_HZ / sum(map(len, trials)))
        amplitudes.append(np.median(events))
    assert 0.6 < rates[1] / rates[0] < 1.6
    assert 0.7 < amplitudes[1] / amplitudes[0] < 1.4
    hertz, recorded = spectrum(real, 128)
    _, generated = spectrum(noisy, 128)
    low = (hertz > 0.5) & (hertz < 10)
    assert np.all(np.abs(np.log(generated[low] / recorded[low])) < np.log(1.8))
    hertz, recorded = spectrum(list(drift_pieces(real)), 48)
    _, generated = spectrum(list(drift_pieces(simulated)), 48)
    low = (hertz > 2) & (hertz < 6)
    assert np.all(np.abs(np.log(generated[low] / recorded[low])) < np.log(2.0))
    quantiles = np.linspace(0.1, 0.9, 9)
    ratio = np.quantile(speeds(noisy), quantiles) / np.quantile(speeds(real), quantiles)
    assert np.all(np.abs(np.log(ratio)) < np.log(1.3))
    tails = [np.mean(speeds(trials) > 20) for trials in (real, noisy)]
    assert 1 / 3 < tails[1] / tails[0] < 3
