"""Relaxation and rotation against the reference; the recurrent form against its differential equation and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics

LEVELS = (0, 1)


def moved(x):
    """Moves [B, M, T, H, W] to [T, B, H, W, M]."""
    return x.transpose(2, 0, 3, 4, 1)


def pose(x):
    return moved(x[:, :, 0]), moved(x[:, :, 1])


def over_space(x, like):
    """Broadcasts [B, T, m] over the pixels of [T, B, H, W, M]."""
    return jnp.broadcast_to(jnp.swapaxes(x, 0, 1)[:, :, None, None], like.shape)


def advance(inputs, dt):
    """Moves every level by one frame as the reference does: no memory, and no 2 pi in its phase."""
    vectors, velocity = inputs["kxy"], inputs["v_eff"] / (2 * jnp.pi)
    turn = dynamics.phase_step(velocity, vectors, inputs["gamma"], inputs["rho"], dt=dt)
    rate = dynamics.relaxation_rate(inputs["q"], inputs["lambda_fix"], inputs["lambda_sac"])
    outputs = []
    for level in LEVELS:
        amplitude, (even, odd) = inputs[f"A{level}"], inputs[f"U{level}"]
        resting = jnp.broadcast_to(inputs["a_bar"][level][None, None, None, None], amplitude.shape)
        decay = over_space(jnp.exp(-rate * dt), amplitude)
        angle = over_space(turn[:, :, level], amplitude)
        rotated = dynamics.rotate(even, odd, jnp.cos(angle), jnp.sin(angle))
        outputs.append((dynamics.relax_amplitude(amplitude, resting, decay), rotated))
    return outputs


def reference_inputs(arrays, case, cast):
    names = ("lambda_fix", "lambda_sac", "a_bar", "kxy")
    inputs = {name: arrays[f"{case}.p.{name}"] for name in names}
    inputs |= {name: arrays[name] for name in ("q", "v_eff", "gamma", "rho")}
    for level in LEVELS:
        inputs |= {f"A{level}": moved(arrays[f"A{level}"]), f"U{level}": pose(arrays[f"U{level}"])}
    return jax.tree.map(cast, inputs)


def stored_weights(arrays):
    return [(moved(arrays[f"dt120.w{level}"]), pose(arrays[f"dt120.w{level + 2}"])) for level in LEVELS]


def recovered_weights(arrays):
    """Solves the reference's float64 gradients dA = w g and dU = R(-d_phi) w for the float64 weights."""
    dt, double = float(arrays["dt120.dt"]), {k: np.asarray(v, np.float64) for k, v in arrays.items()}
    gate = double["q"][:, :, 0]
    rate = (1 - gate) * double["dt120.p.lambda_fix"] + gate * double["dt120.p.lambda_sac"]
    cycles = np.einsum("btd,lmd->btlm", double["v_eff"], double["dt120.p.kxy"])
    turn = double["gamma"] * cycles * dt + double["rho"]
    weights = []
    for level in LEVELS:
        amplitude = moved(double[f"dt120.dA{level}.f64"]) / np.exp(-rate * dt).T[:, :, None, None, None]
        angle = turn[:, :, level].swapaxes(0, 1)[:, :, None, None]
        even, odd = pose(double[f"dt120.dU{level}.f64"])
        rotated = np.cos(angle) * even - np.sin(angle) * odd, np.sin(angle) * even + np.cos(angle) * odd
        weights.append((amplitude, rotated))
    return weights


@pytest.mark.parametrize("case", ["dt120", "dt240"])
def test_one_frame_equals_the_reference(golden, precision, case):
    arrays = golden("polar/polar_dynamics")
    outputs = jax.jit(advance, static_argnums=1)(
        reference_inputs(arrays, case, precision.array), float(arrays[f"{case}.dt"])
    )
    for level, (amplitude, rotated) in enumerate(outputs):
        expected = pose(arrays[f"{case}.U{level}_next{precision.suffix}"])
        precision.assert_value(amplitude, moved(arrays[f"{case}.A{level}_next{precision.suffix}"]), "A")
        for actual, part in zip(rotated, expected, strict=True):
            precision.assert_value(actual, part, f"U{level}")


def test_the_weights_of_the_float64_gradients_were_rounded_when_stored(golden):
    arrays = golden("polar/polar_dynamics")
    stored, recovered = (jax.tree.leaves(f(arrays)) for f in (stored_weights, recovered_weights))
    for kept, exact in zip(stored, recovered, strict=True):
        assert abs(exact - kept).max() > 1e-9
        assert (exact.astype(np.float32) == kept).mean() > 0.999


def test_gradients_equal_the_reference(golden, precision):
    arrays = golden("polar/polar_dynamics")
    double = precision.dtype is np.float64
    weights = jax.tree.map(precision.array, (recovered_weights if double else stored_weights)(arrays))

    @jax.jit
    def gradients_of(inputs):
        return jax.vjp(lambda inputs: advance(inputs, float(arrays["dt120.dt"])), inputs)[1](weights)[0]

    gradients = gradients_of(reference_inputs(arrays, "dt120", precision.array))
    expected = {
        name: arrays[f"dt120.grad.{name}{precision.suffix}"] for name in ("lambda_fix", "lambda_sac", "a_bar")
    }
    expected |= {name: arrays[f"dt120.d{name}{precision.suffix}"] for name in ("q", "v_eff", "gamma", "rho")}
    for level in LEVELS:
        expected[f"A{level}"] = moved(arrays[f"dt120.dA{level}{precision.suffix}"])
        expected[f"U{level}"] = pose(arrays[f"dt120.dU{level}{precision.suffix}"])
    del gradients["kxy"]
    for name, actual in gradients.items():
        for part, exact in zip(jax.tree.leaves(actual), jax.tree.leaves(expected[name]), strict=True):
            precision.assert_gradient(part, exact, name)
            if double:
                np.testing.assert_allclose(part, exact, rtol=1e-9, atol=1e-9 * abs(exact).max(), err_msg=name)


def test_wave_vectors_equal_the_reference(golden):
    for name, expected in golden("polar/init_kxy").items():
        base = float(name.split(".b")[1])
        actual = dynamics.wave_vectors(*expected.shape[:2], base)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-8)
        np.testing.assert_allclose(
            np.linalg.norm(actual, axis=-1)[:, 0], base * 0.5 ** np.arange(len(actual))
        )


def test_the_phase_step_is_a_whole_turn_for_one_wavelength():
    vectors = jnp.asarray(dynamics.wave_vectors(2, 4, 0.15), jnp.float32)
    ones = jnp.ones((2, 4))
    wavelength_per_second = jnp.array([1 / 0.15, 0.0])
    step = dynamics.phase_step(wavelength_per_second, vectors, ones, 0 * ones, dt=1.0)
    np.testing.assert_allclose(step[:, 0] / (2 * np.pi), [1, 0.5], rtol=1e-6)
    # Motion along the bars of a grating does not turn it.
    np.testing.assert_allclose(step[:, 2], 0, atol=1e-6)
    shifted = dynamics.phase_step(wavelength_per_second, vectors, 2 * ones, 0.1 * ones, dt=0.5)
    np.testing.assert_allclose(shifted, step + 0.1, rtol=1e-6, atol=1e-6)


def test_a_rotation_keeps_the_length_and_adds_angles():
    random = np.random.default_rng(8)
    even, odd, a, b = jnp.asarray(random.normal(size=(4, 50)), jnp.float32)
    once = dynamics.rotate(even, odd, jnp.cos(a), jnp.sin(a))
    np.testing.assert_allclose(np.hypot(*once), np.hypot(even, odd), rtol=1e-5)
    twice = dynamics.rotate(*once, jnp.cos(b), jnp.sin(b))
    expected = (even + 1j * odd) * np.exp(1j * (a + b))
    np.testing.assert_allclose(twice[0] + 1j * twice[1], expected, rtol=1e-5, atol=1e-5)


def test_the_relaxation_rate_goes_from_fixation_to_saccade():
    rates = dynamics.relaxation_rate(jnp.array([0.0, 0.25, 1.0]), jnp.float32(10), jnp.float32(40))
    np.testing.assert_allclose(rates, [10, 17.5, 40])


def test_relaxation_is_exact_for_any_step():
    amplitude, resting = jnp.array([0.2, 3.0]), jnp.array([1.0, 0.5])
    rate, dt = 40.0, 1 / 60

    def relax(x, duration):
        return dynamics.relax_amplitude(x, resting, jnp.full(2, np.exp(-rate * duration)))

    whole = relax(amplitude, dt)
    np.testing.assert_allclose(relax(relax(amplitude, dt / 2), dt / 2), whole, rtol=1e-6)
    np.testing.assert_allclose(whole, resting + (amplitude - resting) * np.exp(-rate * dt), rtol=1e-6)
    np.testing.assert_allclose(relax(amplitude, 0.0), amplitude, rtol=1e-6)
    np.testing.assert_allclose(relax(amplitude, 10.0), resting, rtol=1e-6)


def driven(start, observed, resting, gate, dt, n_frames, rates=(10.0, 40.0)):
    """Drives one amplitude with a constant observation; returns it at every frame."""
    rate = dynamics.relaxation_rate(jnp.float32(gate), *(jnp.float32(r) for r in rates))
    decay = jnp.exp(-rate * dt)
    gain = rates[0] / rate * (1 - decay)
    trace, value = [], jnp.float32(start)
    for _ in range(n_frames):
        arguments = (value, jnp.float32(observed), jnp.float32(resting), decay, gain)
        value = dynamics.drive_amplitude(*arguments)
        trace.append(float(value))
    return np.array(trace)


def test_without_a_drive_the_amplitude_decays_with_tau_1_over_lambda():
    dt, resting = 1 / 240, 0.5
    for gate, rate in ((0.0, 10.0), (1.0, 40.0), (0.5, 25.0)):
        trace = driven(2.0, resting, resting, gate, dt, 30)
        times = dt * np.arange(1, 31)
        np.testing.assert_allclose(trace, resting + 1.5 * np.exp(-times * rate), rtol=1e-5)
    assert np.isclose(driven(2.0, resting, resting, 0.0, 0.1, 1)[0] - resting, 1.5 / np.e, rtol=1e-5)


def test_a_long_fixation_ends_at_the_observed_amplitude_and_a_saccade_below_by_the_ratio_of_rates():
    observed, resting = 3.0, 0.5
    np.testing.assert_allclose(driven(0.0, observed, resting, 0.0, 0.05, 60)[-1], observed, rtol=1e-5)
    suppressed = driven(0.0, observed, resting, 1.0, 0.05, 60)[-1]
    np.testing.assert_allclose(suppressed - resting, (observed - resting) * 10 / 40, rtol=1e-5)


def test_a_drive_held_over_a_frame_solves_the_differential_equation_for_any_step():
    coarse = driven(1.0, 3.0, 0.5, 0.3, 1 / 60, 4)
    fine = driven(1.0, 3.0, 0.5, 0.3, 1 / 240, 16)
    np.testing.assert_allclose(fine[3::4], coarse, rtol=1e-5)
    rate, value, n_steps = 0.7 * 10 + 0.3 * 40, 1.0, 100_000
    for _ in range(n_steps):
        value += (-rate * (value - 0.5) + 10 * (3.0 - 0.5)) * (1 / 60) / n_steps
    np.testing.assert_allclose(coarse[0], value, rtol=1e-5)


def test_a_driven_pose_follows_a_rotation_that_it_predicts():
    step, decay, n_frames = 0.4, 0.8, 20
    angle = jnp.asarray(0.3 + step * np.arange(n_frames), jnp.float32)
    observed = jnp.cos(angle), jnp.sin(angle)
    rotation, keep = (jnp.cos(jnp.float32(step)), jnp.sin(jnp.float32(step))), jnp.float32(decay)
    state = observed[0][0], observed[1][0]
    for t in range(1, n_frames):
        state = dynamics.drive_pose(state, (observed[0][t], observed[1][t]), rotation, keep)
        np.testing.assert_allclose(state, (observed[0][t], observed[1][t]), atol=1e-5)


def test_a_driven_pose_is_the_complex_recurrence():
    random = np.random.default_rng(9)
    z, u = random.normal(size=(2, 6)) + 1j * random.normal(size=(2, 6))
    angle, decay = random.normal(size=6), random.uniform(size=6)
    arguments = [(x.real, x.imag) for x in (z, u, np.exp(1j * angle))]
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (*arguments, decay))
    even, odd = dynamics.drive_pose(*single)
    np.testing.assert_allclose(even + 1j * odd, decay * np.exp(1j * angle) * z + (1 - decay) * u, atol=1e-6)
