"""Gaze features against the reference and plain loops, at rest, and handed on from chunk to chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import gaze as ops

DT = 1 / 240
# a_x, a_y, a_par and a_perp among the features.
ACCELERATIONS = slice(13, 17)


def saccadic_gaze(n_frames=30, seed=5):
    """Returns [2, T, 2], degrees: drift with one saccade, and an eye that rests."""
    random = np.random.default_rng(seed)
    moving = np.cumsum(random.normal(size=(n_frames, 2)) * 0.01, 0)
    moving[n_frames // 2 :] += [1.5, -0.7]
    return jnp.asarray(np.stack([moving, np.full((n_frames, 2), 0.3)]), jnp.float32)


def gate_parameters(threshold=20.0, sharpness=0.2):
    return jnp.log(jnp.float32(threshold)), jnp.float32(sharpness)


@functools.partial(jax.jit, static_argnames=("dt", "scaled"))
def features(gaze, p, dt, memory=None, scaled=False):
    """Returns the 20 features with the reference's names of parameters."""
    positions = tuple(
        ops.position_features(gaze[..., i], p[f"pos_logw_{axis}"], p[f"pos_phi_{axis}"])
        for i, axis in enumerate("xy")
    )
    memory = ops.initial_memory(gaze) if memory is None else memory
    return ops.gaze_features(gaze, memory, positions, (p["sac_log_thr"], p["sac_invT"]), dt=dt, scaled=scaled)


def default_parameters():
    log_threshold, sharpness = gate_parameters()
    waves = {f"pos_logw_{axis}": jnp.log(jnp.array([0.05, 0.15])) for axis in "xy"}
    return waves | {f"pos_phi_{axis}": jnp.zeros(2) for axis in "xy"} | {
        "sac_log_thr": log_threshold, "sac_invT": sharpness,
    }  # fmt: skip


def reference_parameters(arrays, case, cast):
    prefix = f"{case}.p."
    return {key.removeprefix(prefix): cast(value) for key, value in arrays.items() if key.startswith(prefix)}


@pytest.mark.parametrize("case", ["deg120", "deg240", "px_yaml", "t1", "t2"])
def test_features_equal_the_reference(golden, precision, case):
    arrays = golden("polar/gaze_encoder")
    p = reference_parameters(arrays, case, precision.array)
    dt = float(arrays[f"{case}.dt"])
    actual, _ = features(precision.array(arrays[f"{case}.gaze"]), p, dt)
    expected = arrays[f"{case}.features{precision.suffix}"]
    # A compiled division by dt is off by a last digit of the velocity, and an acceleration is a small difference of two
    # velocities over dt: its rounding is relative to them.
    speed, earlier = expected[..., 10], np.roll(expected[..., 10], 1, axis=1)
    rounding = np.zeros_like(expected)
    rounding[..., ACCELERATIONS] = (4 * np.finfo(precision.dtype).eps * (speed + earlier) / dt)[..., None]
    assert actual.dtype == precision.dtype
    assert (abs(actual - expected) <= precision.value * (1 + abs(expected)) + rounding).all()


def test_gradients_through_the_code_equal_the_reference(golden, precision):
    arrays = golden("polar/gaze_encoder")
    dt, weights = float(arrays["deg120.dt"]), precision.array(arrays["deg120.w"]) * 1e-3

    @jax.jit
    def code_and_gradients(p, gaze):
        def code(p, gaze):
            x = features(gaze, p, dt)[0]
            for layer in ("proj1", "proj2"):
                x = x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"][None, None]
                x = jax.nn.gelu(x, approximate=False)
            return x

        value, pull_back = jax.vjp(code, p, gaze)
        return value, pull_back(weights)

    p = reference_parameters(arrays, "deg120", precision.array)
    value, (gradients, dgaze) = code_and_gradients(p, precision.array(arrays["deg120.gaze"]))
    precision.assert_value(value, arrays[f"deg120.bcode{precision.suffix}"])
    for name, actual in gradients.items():
        precision.assert_gradient(actual, arrays[f"deg120.grad.{name}{precision.suffix}"], name)
    for trial, actual in enumerate(dgaze):
        precision.assert_gradient(actual, arrays[f"deg120.dgaze{precision.suffix}"][trial], f"trial {trial}")


def test_kinematics_equal_a_loop_over_frames():
    trace = saccadic_gaze()
    motion = jax.jit(lambda g: ops.kinematics(g, ops.initial_memory(g), dt=DT))(trace)
    g = np.asarray(trace, np.float64)
    velocity, acceleration = np.zeros_like(g), np.zeros_like(g)
    for t in range(1, g.shape[1]):
        velocity[:, t] = (g[:, t] - g[:, t - 1]) / DT
        acceleration[:, t] = (velocity[:, t] - velocity[:, t - 1]) / DT
    speed = np.linalg.norm(velocity, axis=-1)
    np.testing.assert_allclose(motion.velocity, velocity, atol=1e-4)
    np.testing.assert_allclose(motion.acceleration, acceleration, rtol=1e-4, atol=0.05)
    np.testing.assert_allclose(motion.speed, speed, atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(motion.direction, axis=-1), speed > 0, atol=1e-4)
    along = motion.tangential[..., None] * motion.direction
    turned = jnp.stack([-motion.direction[..., 1], motion.direction[..., 0]], -1)
    rebuilt = along + motion.normal[..., None] * turned
    np.testing.assert_allclose(rebuilt, acceleration * (speed > 0)[..., None], rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_resting_eye_has_finite_features_and_gradients(scaled):
    still = jnp.full((1, 6, 2), 0.4)
    p = default_parameters()
    value, gradient = jax.value_and_grad(lambda g: features(g, p, DT, scaled=scaled)[0].sum())(still)
    assert bool(jnp.isfinite(value)) and bool(jnp.isfinite(gradient).all())


def test_speed_at_rest_is_0_with_gradient_0():
    speed, gradient = jax.value_and_grad(lambda v: ops.safe_speed(v))(jnp.zeros(2))
    assert speed == 0 and bool((gradient == 0).all())
    np.testing.assert_allclose(jax.grad(ops.safe_speed)(jnp.array([3.0, -4.0])), [0.6, -0.8], rtol=1e-6)


def test_the_saccade_gate_rises_from_0_to_1_and_is_a_half_at_its_threshold():
    gate = ops.saccade_gate(jnp.array([0.0, 20.0, 1e4]), *gate_parameters())
    np.testing.assert_allclose(gate, [1 / (1 + np.exp(4)), 0.5, 1], rtol=1e-5)
    speeds = jnp.linspace(0, 500, 100)
    gates = ops.saccade_gate(speeds, *gate_parameters(200, 0.05))
    assert bool((gates >= 0).all()) and bool((gates <= 1).all()) and bool((jnp.diff(gates) >= 0).all())


def test_a_sharp_gate_far_below_its_threshold_has_finite_gradients():
    gradients = jax.grad(ops.saccade_gate, argnums=(0, 1, 2))(jnp.float32(0), *gate_parameters(200, 1.0))
    np.testing.assert_array_equal(gradients, 0)


@pytest.mark.parametrize("alpha", ops.GATE_MEMORIES)
def test_a_running_average_equals_a_loop(alpha):
    random = np.random.default_rng(6)
    x, y = random.uniform(size=(3, 12)), random.uniform(size=3)
    actual = ops.running_average(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), alpha)
    for t in range(x.shape[1]):
        y = alpha * y + (1 - alpha) * x[:, t]
        np.testing.assert_allclose(np.asarray(actual)[:, t], y, rtol=1e-5)


def test_position_features_are_the_sines_then_the_cosines():
    frequency, phase = np.array([0.1, 0.4]), np.array([0.3, -1.0])
    x = np.array([[0.0, 1.0, -2.5]])
    actual = ops.position_features(*(jnp.asarray(v, jnp.float32) for v in (x, np.log(frequency), phase)))
    angle = 2 * np.pi * x[..., None] * frequency + phase
    np.testing.assert_allclose(actual, np.concatenate([np.sin(angle), np.cos(angle)], -1), atol=2e-6)


@pytest.mark.parametrize("scaled", [True, False])
def test_two_chunks_with_the_memory_handed_on_equal_the_whole_trace(scaled):
    trace, p = saccadic_gaze(), default_parameters()
    whole, newest = features(trace, p, DT, scaled=scaled)
    first, memory = features(trace[:, :11], p, DT, scaled=scaled)
    second, last = features(trace[:, 11:], p, DT, memory, scaled=scaled)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-5)
    for a, b in zip(newest, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_trace_begins_at_rest():
    trace = saccadic_gaze()
    first = features(trace, default_parameters(), DT)[0][:, 0]
    np.testing.assert_array_equal(first[:, 8:17], 0)


def test_scaled_features_are_asinh_of_the_raw_ones_and_stay_small():
    raw, _ = features(saccadic_gaze(), default_parameters(), DT)
    scaled, _ = features(saccadic_gaze(), default_parameters(), DT, scaled=True)
    unit = np.array([10.0] * 3 + [1000.0] * 4)
    motion = [8, 9, 10, 13, 14, 15, 16]
    others = [i for i in range(20) if i not in motion]
    np.testing.assert_allclose(
        scaled[..., motion], np.arcsinh(np.asarray(raw)[..., motion] / unit), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(scaled[..., others], raw[..., others])
    assert abs(raw).max() > 1e4 and abs(scaled).max() < 8


def test_the_image_slips_against_the_eye_in_pixels_whose_rows_go_down():
    velocity = jnp.asarray([[3.0, 0.0], [0.0, 2.0], [-1.0, -4.0]])
    slip = ops.retinal_slip(velocity, 10.0)
    np.testing.assert_allclose(slip, [[-30.0, 0.0], [0.0, 20.0], [10.0, -40.0]])
