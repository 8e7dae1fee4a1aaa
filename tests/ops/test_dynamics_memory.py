"""The memory of amplitude and pose over many frames: scan, parallel prefix and plain loops agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics


def recurrence_inputs(kind, n_frames=17):
    random = np.random.default_rng(10)
    factor, term, start = random.uniform(0.5, 1, (n_frames, 1)), random.normal(size=(n_frames, 3)), np.ones(3)
    if kind == "complex":
        factor, term, start = factor * np.exp(1j * term[:, :1]), term * np.exp(1j * factor), start * (1 + 2j)
        return tuple(jnp.asarray(x, jnp.complex64) for x in (factor, term, start))
    return tuple(jnp.asarray(x, jnp.float32) for x in (factor, term, start))


@pytest.mark.parametrize("n_frames", [1, 17])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_recurrence_equals_a_loop(kind, n_frames):
    inputs = recurrence_inputs(kind, n_frames)
    actual = np.asarray(jax.jit(dynamics.linear_recurrence)(*inputs))
    assert actual.dtype == inputs[1].dtype
    factor, term, x = (np.asarray(value, np.complex128) for value in inputs)
    for t in range(n_frames):
        x = factor[t] * x + term[t]
        np.testing.assert_allclose(actual[t], x, rtol=1e-5, atol=1e-5)


def memory_inputs(n_frames=7, shape=(2, 3, 2, 4)):
    """Returns amplitudes, poses, turns, decays and drive gains of [T, B, H, W, M], a saccade among them."""
    random = np.random.default_rng(18)
    angle, turn = (
        random.uniform(0, 6, (n_frames, *shape)),
        random.normal(size=(n_frames, shape[0], 1, 1, shape[-1])),
    )
    gate = np.zeros((n_frames, shape[0], 1, 1, 1))
    gate[n_frames // 2] = 1
    rate = 10 + 30 * gate
    decay = np.exp(-rate / 60)
    inputs = {
        "amplitude": random.uniform(0.1, 2, angle.shape),
        "resting": random.uniform(0.1, 1, shape[-1]),
        "start": random.uniform(0.1, 2, shape),
        "pose": (np.cos(angle), np.sin(angle)),
        "turn": (np.cos(turn), np.sin(turn)),
        "decay": decay,
        "gain": 10 / rate * (1 - decay),
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), inputs)


@functools.partial(jax.jit, static_argnums=1)
def remembered(inputs, method):
    first = jax.tree.map(lambda x: x[0], inputs["pose"])
    amplitude = dynamics.evolve_amplitude(
        inputs["amplitude"],
        inputs["start"],
        inputs["resting"],
        inputs["decay"],
        inputs["gain"],
        method=method,
    )
    return amplitude, *dynamics.evolve_pose(
        inputs["pose"], first, inputs["turn"], inputs["decay"], method=method
    )


def test_amplitude_and_pose_remember_by_their_recurrences():
    inputs = memory_inputs()
    amplitude, even, odd = (np.asarray(x) for x in remembered(inputs, "scan"))
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), inputs)
    observed, turn = (double[name][0] + 1j * double[name][1] for name in ("pose", "turn"))
    a, z, rest = double["start"], observed[0], double["resting"]
    for t in range(len(observed)):
        decay, gain = double["decay"][t], double["gain"][t]
        a = rest + decay * (a - rest) + gain * (double["amplitude"][t] - rest)
        z = decay * turn[t] * z + (1 - decay) * observed[t]
        np.testing.assert_allclose(amplitude[t], a, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(even[t] + 1j * odd[t], z, rtol=1e-5, atol=1e-5)


def test_the_parallel_method_has_the_values_and_gradients_of_the_scan():
    inputs = memory_inputs()
    weights = jnp.asarray(np.random.default_rng(19).normal(size=(3, *inputs["amplitude"].shape)), jnp.float32)

    @jax.jit
    def both(inputs):
        def run(method):
            outputs, pull_back = jax.vjp(lambda inputs: remembered(inputs, method), inputs)
            return outputs, pull_back(tuple(weights))

        return run("scan"), run("associative")

    scan, parallel = (jax.tree.leaves(part) for part in both(inputs))
    for a, b in zip(scan, parallel, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * max(1, float(abs(a).max())))


@pytest.mark.parametrize("method", ["scan", "associative"])
def test_one_frame_of_memory_is_one_step(method):
    inputs = memory_inputs(1)
    amplitude, even, odd = remembered(inputs, method)
    decay, gain = inputs["decay"][0], inputs["gain"][0]
    rest = inputs["resting"][None, None, None]
    stepped = jax.jit(dynamics.drive_amplitude)(inputs["start"], inputs["amplitude"][0], rest, decay, gain)
    np.testing.assert_allclose(amplitude[0], stepped, rtol=1e-5)
    seen = jax.tree.map(lambda x: x[0], inputs["pose"])
    turn = tuple(part[0] for part in inputs["turn"])
    pose = jax.jit(dynamics.drive_pose)(seen, seen, turn, decay)
    np.testing.assert_allclose([even[0], odd[0]], pose, atol=1e-6)
