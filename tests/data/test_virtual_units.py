import numpy as np
import pytest

from polarjax.data import virtual_units

RATE_HZ = 120.0


@pytest.fixture(scope="module")
def units():
    return virtual_units.draw_units(np.random.default_rng(0), 40)


def test_half_of_the_units_are_complex_and_every_parameter_is_in_its_range(units):
    assert units.is_complex.sum() == 20
    assert np.all((units.cycles_per_degree >= 1) & (units.cycles_per_degree <= 5))
    assert np.all((units.mean_rate >= 5) & (units.mean_rate <= 30))
    assert np.all(np.linalg.norm(units.position_deg, axis=1) <= 0.4)
    assert np.all(units.envelope_deg * units.cycles_per_degree <= 0.6)


def test_filters_are_quadrature_pairs_of_zero_mean_and_unit_norm(units):
    even, odd, surround = virtual_units.make_receptive_fields(units, 51, 37.0)
    for filters in (even, odd):
        np.testing.assert_allclose((filters**2).sum(0), 1, atol=1e-5)
        np.testing.assert_allclose(filters.sum(0), 0, atol=1e-4)
    np.testing.assert_allclose(surround.sum(0), 1, atol=1e-5)
    middle = np.argmin(units.envelope_deg)
    assert abs((even[:, middle] * odd[:, middle]).sum()) < 0.02


def test_filters_prefer_their_orientation_with_y_pointing_up():
    unit = virtual_units.draw_units(np.random.default_rng(0), 1)
    unit = unit._replace(
        orientation_deg=np.array([30.0]),
        cycles_per_degree=np.array([3.0]),
        position_deg=np.array([[0.2, 0.1]]),
    )
    even, odd, _ = virtual_units.make_receptive_fields(unit, 51, 37.0)
    offset = (np.arange(51) - 25) / 37
    x, y = np.meshgrid(offset, -offset)

    def amplitude(angle):
        grating = np.cos(2 * np.pi * 3.0 * (x * np.cos(angle) + y * np.sin(angle))).ravel()
        return np.hypot(grating @ even[:, 0], grating @ odd[:, 0])

    assert amplitude(np.deg2rad(30)) > 3 * amplitude(np.deg2rad(-30))
    energy = (even[:, 0] ** 2 + odd[:, 0] ** 2).reshape(51, 51)
    assert (energy * x).sum() / energy.sum() == pytest.approx(0.2, abs=0.02)
    assert (energy * y).sum() / energy.sum() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(("gate", "tau"), [(0.0, 0.100), (1.0, 0.025)])
def test_amplitude_decays_with_the_stated_time_constant(gate, tau):
    amplitude = np.zeros((1, 60, 1))
    amplitude[:, 0] = 1.0
    memory = virtual_units.remember_amplitude(amplitude, np.full((1, 60), gate), RATE_HZ)[0, :, 0]
    np.testing.assert_allclose(memory, np.exp(-np.arange(60) / RATE_HZ / tau), rtol=1e-10)


def test_steady_amplitude_is_kept_in_fixation_and_falls_to_a_quarter_in_a_saccade():
    amplitude = np.full((1, 400, 1), 3.0)
    fixating = virtual_units.remember_amplitude(amplitude, np.zeros((1, 400)), RATE_HZ)
    moving = virtual_units.remember_amplitude(amplitude, np.ones((1, 400)), RATE_HZ)
    np.testing.assert_allclose(fixating, 3.0)
    assert moving[0, -1, 0] == pytest.approx(3.0 * 0.025 / 0.100)


def test_gate_opens_at_20_degrees_per_second_and_is_nearly_closed_at_rest():
    gaze = np.zeros((1, 3, 2), np.float32)
    gaze[0, 2, 0] = 20 / RATE_HZ
    gate = virtual_units.saccade_gate(gaze, RATE_HZ)
    np.testing.assert_allclose(gate[0], [1 / (1 + np.exp(4)), 1 / (1 + np.exp(4)), 0.5], rtol=1e-5)


def test_gain_falls_during_a_saccade_and_rebounds_50_to_150_ms_after_it(units):
    gate = np.zeros((1, 120))
    gate[:, 40:45] = 1.0
    gain = virtual_units.saccade_gain(gate, units, RATE_HZ)[0]
    np.testing.assert_array_equal(gain[:40], 1.0)
    assert np.all(gain[40:45].min(0) < 1 - 0.7 * units.suppression)
    peak = (gain.argmax(0) - 42) / RATE_HZ
    assert np.all((peak > 0.05) & (peak < 0.15))
    np.testing.assert_allclose(gain.max(0), 1 + units.rebound, rtol=0.05)
    np.testing.assert_allclose(gain[110:], 1.0, atol=0.01)


def test_a_simple_cell_follows_contrast_polarity_and_a_complex_cell_does_not(units):
    rng = np.random.default_rng(1)
    even, odd = rng.standard_normal((2, 4, 50, 40))
    contrast, gaze = np.full((4, 50, 40), 0.1), np.zeros((4, 50, 2), np.float32)
    rate, inverted = (
        virtual_units.firing_rate(units, sign * even, sign * odd, contrast, gaze, np.ones(4, bool), RATE_HZ)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(rate[..., units.is_complex], inverted[..., units.is_complex])
    base = units.baseline * units.mean_rate
    silent = np.isclose(rate, base) | np.isclose(inverted, base)
    assert silent[..., ~units.is_complex].all()
    np.testing.assert_allclose(rate.mean((0, 1)), units.mean_rate)
