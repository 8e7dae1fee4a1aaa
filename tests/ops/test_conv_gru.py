"""The convolutional GRU: the reference's numbers, interleaved sequences, states that stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.conv_gru import RecurrentWeights, conv_gru, conv_gru_drive


def frames_first(x):
    """[B, C, T, H, W] -> [H, W, B, T, C]."""
    return np.transpose(x, (3, 4, 0, 2, 1))


def kernels_of(x):
    return np.transpose(x, (2, 3, 1, 0))


READ = {
    "h0": np.ravel,
    "cell.conv_x.weight": kernels_of,
    "cell.conv_x.bias": np.ravel,
    "cell.conv_h.weight": kernels_of,
    "cell.layer_norm.weight": np.ravel,
    "cell.layer_norm.bias": np.ravel,
}


def run(x, h0, kernel_x, bias, kernel_h, scale, shift):
    start = jnp.broadcast_to(h0.reshape(1, 1, 1, 1, -1), (*x.shape[:3], 1, len(h0)))
    return conv_gru(start, conv_gru_drive(x, kernel_x, bias), RecurrentWeights(kernel_h, scale, shift))


@jax.jit
def last_and_slopes(given, weight):
    """Returns the last state and the gradients of its weighted sum."""
    last, pull = jax.vjp(lambda *args: run(*args)[:, :, :, -1], *given)
    return last, pull(weight)


def values_and_gradients(arrays, name, array):
    """Yields (name, ours, name of the reference's array in our layout) of the last state and of every gradient."""
    given = [array(frames_first(arrays[f"{name}.in0"]))]
    given += [array(read(arrays[f"{name}.p.{key}"])) for key, read in READ.items()]
    out, slopes = last_and_slopes(given, array(np.transpose(arrays[f"{name}.w"], (2, 3, 0, 1))))
    yield out, f"{name}.out", lambda x: np.transpose(x, (2, 3, 0, 1))
    yield slopes[0], f"{name}.din0", frames_first
    for slope, (key, read) in zip(slopes[1:], READ.items(), strict=True):
        yield slope, f"{name}.grad.{key}", read


def test_values_and_gradients_equal_the_reference(golden, precision):
    arrays = golden("polar/convgru")
    for actual, name, read in values_and_gradients(arrays, "gru", precision.array):
        check = precision.assert_value if name.endswith("out") else precision.assert_gradient
        check(actual, read(arrays[name + precision.suffix]), name)


def test_32_channels_in_32_groups_equal_the_reference(golden):
    arrays = golden("polar/convgru")
    compared = [
        (x, read(arrays[y]))
        for x, y, read in values_and_gradients(arrays, "gru32", jnp.asarray)
        if y in arrays
    ]
    np.testing.assert_allclose(*compared[0], rtol=2e-5, atol=2e-5)
    for actual, expected in compared[1:]:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert len(compared) == 8


@pytest.fixture
def case():
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(0, 0.5, shape), jnp.float32)

    weights = RecurrentWeights(draw(3, 3, 4, 12), 1 + draw(12), draw(12))
    return draw(3, 4, 2, 2, 4), draw(3, 4, 2, 7, 12), weights


def test_interleaved_sequences_are_the_sequences_alone(case):
    start, drive, weights = case
    both = conv_gru(start, drive, weights)
    for phase in range(2):
        alone = conv_gru(start[:, :, :, phase : phase + 1], drive[:, :, :, phase::2], weights)
        np.testing.assert_allclose(both[:, :, :, phase::2], alone, rtol=1e-5, atol=1e-6)


def test_a_state_stays_until_it_runs(case):
    start, drive, weights = case
    runs = jnp.asarray([0, 0, 0, 1, 1, 1, 1], jnp.float32)
    late = conv_gru(start, drive, weights, runs)
    np.testing.assert_array_equal(late[:, :, :, 2], start[:, :, :, 0])
    early = conv_gru(start[:, :, :, ::-1], drive[:, :, :, 3:], weights)
    np.testing.assert_allclose(late[:, :, :, 3:], early, rtol=1e-5, atol=1e-6)
