"""Summaries over time against the reference, plain sums, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import gaussian_pooling, summaries

REFERENCE = ("last", "fast", "slow", "derivative", "energy")
ALPHAS = (0.74, 0.95)


def moved(x):
    """Moves [B, M, T, H, W] to [T, B, H, W, M]."""
    return x.transpose(2, 0, 3, 4, 1)


def window(n_frames, seed=12):
    """Returns an amplitude and a unit pose [T, 2, 4, 3, 5]."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, (n_frames, 2, 4, 3, 5))
    amplitude = random.uniform(0.1, 2, angle.shape)
    return tuple(jnp.asarray(x, jnp.float32) for x in (amplitude, np.cos(angle), np.sin(angle)))


@pytest.mark.parametrize("case", ["T1", "T2", "T3", "T25"])
def test_summaries_and_their_gradients_equal_the_reference(golden, precision, case):
    arrays = golden("polar/temporal_summarizer")
    weights = precision.array(np.moveaxis(arrays[f"{case}.w"], 1, -1))

    @jax.jit
    def features_and_gradients(*inputs):
        def features(amplitude, even, odd, fast_logit, slow_logit):
            alphas = jax.nn.sigmoid(fast_logit), jax.nn.sigmoid(slow_logit)
            return summaries.summarize(
                amplitude, (even, odd), *alphas, names=REFERENCE, bias_correction=False
            )

        value, pull_back = jax.vjp(features, *inputs)
        return value, pull_back(weights)

    pose = arrays[f"{case}.U"]
    inputs = [moved(x) for x in (arrays[f"{case}.A"], pose[:, :, 0], pose[:, :, 1])]
    logits = [arrays["p.alpha_fast_logit"], arrays["p.alpha_slow_logit"]]
    value, gradients = features_and_gradients(*(precision.array(x) for x in inputs + logits))
    precision.assert_value(value, np.moveaxis(arrays[f"{case}.feats{precision.suffix}"], 1, -1))
    d_pose = arrays[f"{case}.dU{precision.suffix}"]
    expected = [moved(x) for x in (arrays[f"{case}.dA{precision.suffix}"], d_pose[:, :, 0], d_pose[:, :, 1])]
    expected += [arrays[f"{case}.grad.alpha_{name}_logit{precision.suffix}"] for name in ("fast", "slow")]
    for name, actual, exact in zip(("A", "even", "odd", "fast", "slow"), gradients, expected, strict=True):
        precision.assert_gradient(actual, exact, name)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 7])
def test_every_summary_equals_its_definition(n_frames):
    amplitude, even, odd = window(n_frames)
    actual = jax.jit(summaries.summarize)(amplitude, (even, odd), *(jnp.float32(alpha) for alpha in ALPHAS))
    a, p, q = (np.asarray(x, np.float64) for x in (amplitude, even, odd))
    expected = [a[-1]]
    for alpha in ALPHAS:
        value = np.zeros_like(a[0])
        for frame in a:
            value = alpha * value + (1 - alpha) * frame
        expected.append(value / (1 - alpha**n_frames))
    expected.append(a[-1] - a[-2] if n_frames > 1 else 0 * a[-1])
    before = max(n_frames - 3, 0)
    energies = [x[-1] ** 2 + ((x[-1] - x[before]) / 2) ** 2 for x in (p, q)]
    expected += [np.sqrt(sum(energies)), a[-1] * p[-1], a[-1] * q[-1]]
    np.testing.assert_allclose(actual, np.concatenate(expected, -1), rtol=2e-5, atol=1e-6)


def test_the_gradient_of_an_average_is_its_weights_in_float64():
    with jax.enable_x64(True):
        alpha, n_frames = 0.9, 25
        x = jnp.asarray(np.random.default_rng(13).normal(size=n_frames))
        lag = np.arange(n_frames)[::-1]
        weights = (1 - alpha) * alpha**lag
        slope = np.vdot(-(alpha**lag) + (1 - alpha) * lag * alpha ** (lag - 1.0), x)
        gradients = jax.jit(
            jax.grad(lambda x, alpha: summaries.ema_last(x, alpha, bias_correction=False), argnums=(0, 1))
        )(x, jnp.float64(alpha))
        np.testing.assert_allclose(gradients[0], weights, rtol=1e-12)
        np.testing.assert_allclose(gradients[1], slope, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.74, 0.95, 0.999])
@pytest.mark.parametrize("n_frames", [1, 4, 25])
def test_the_corrected_average_of_a_constant_is_that_constant(alpha, n_frames):
    x, alpha = jnp.full((n_frames, 2), 3.0), jnp.float32(alpha)
    np.testing.assert_allclose(summaries.ema_last(x, alpha, bias_correction=True), 3, rtol=1e-4)
    lost = summaries.ema_last(x, alpha, bias_correction=False)
    np.testing.assert_allclose(lost, 3 * summaries.ema_bias(alpha, jnp.full(2, n_frames * 1.0)), rtol=1e-4)


def test_the_average_of_one_frame_is_that_frame():
    x = jnp.array([[1.5, -2.0]])
    np.testing.assert_allclose(
        summaries.ema_last(x, jnp.float32(0.95), bias_correction=True), x[0], rtol=1e-6
    )


def test_the_slow_average_of_the_reference_loses_a_quarter_of_its_weight_in_25_frames():
    weight = summaries.ema_last(jnp.ones((25, 1)), jnp.float32(0.95), bias_correction=False)
    np.testing.assert_allclose(weight, 0.7226, atol=1e-4)


def test_pooling_after_averaging_equals_averaging_after_pooling():
    random = np.random.default_rng(14)
    maps = jnp.asarray(random.uniform(size=(9, 2, 4, 3, 2, 5)), jnp.float32)
    gaussians = jnp.asarray(random.uniform(size=(2, 6, 4, 3)), jnp.float32)
    alpha = jnp.float32(0.8)

    @jax.jit
    def both_orders(maps):
        pooled = gaussian_pooling.pool(maps, gaussians)
        last = summaries.ema_last(maps, alpha, bias_correction=True)
        return gaussian_pooling.pool(last[None], gaussians)[0], summaries.ema_last(
            pooled, alpha, bias_correction=True
        )

    pooled_last, last_pooled = both_orders(maps)
    np.testing.assert_allclose(last_pooled, pooled_last, rtol=1e-5)


def test_an_average_carried_from_frame_to_frame_equals_the_weighted_sum():
    maps, _, _ = window(9)
    alpha, value = jnp.float32(0.8), np.zeros(maps.shape[1:])
    for n, frame in enumerate(np.asarray(maps), start=1):
        value = 0.8 * value + 0.2 * frame
        corrected = value / np.asarray(summaries.ema_bias(alpha, jnp.float32(n)))
        if n in (1, 4, 9):
            expected = summaries.ema_last(maps[:n], alpha, bias_correction=True)
            np.testing.assert_allclose(corrected, expected, rtol=1e-5)


def test_the_energy_of_unit_poses_lies_between_1_and_the_root_of_2():
    now, before = np.random.default_rng(15).uniform(0, 2 * np.pi, (2, 500))
    poses = [tuple(jnp.asarray(f(x), jnp.float32) for f in (np.cos, np.sin)) for x in (now, before)]
    energy = summaries.pose_energy(*poses)
    assert energy.min() >= 1 - 1e-6 and energy.max() <= np.sqrt(2) + 1e-6
    np.testing.assert_allclose(energy**2, 1 + (1 - np.cos(now - before)) / 2, rtol=1e-5)
    np.testing.assert_allclose(summaries.pose_energy(poses[0], poses[0]), 1, rtol=1e-6)
    opposite = tuple(-x for x in poses[0])
    np.testing.assert_allclose(summaries.pose_energy(poses[0], opposite), np.sqrt(2), rtol=1e-6)


def test_a_pose_of_zero_has_finite_energy_and_gradient():
    zero = jnp.zeros(3)
    energy, gradient = jax.jit(jax.value_and_grad(lambda x: summaries.pose_energy((x, x), (x, x)).sum()))(
        zero
    )
    assert energy > 0 and bool(jnp.isfinite(gradient).all())


def test_names_choose_the_summaries_and_their_order():
    amplitude, even, odd = window(5)
    alphas = [jnp.float32(alpha) for alpha in ALPHAS]
    summarize = jax.jit(summaries.summarize, static_argnames="names")
    everything = np.asarray(summarize(amplitude, (even, odd), *alphas))
    chosen = summarize(amplitude, (even, odd), *alphas, names=("odd", "last"))
    pairs = amplitude.shape[-1]
    np.testing.assert_array_equal(
        chosen, np.concatenate([everything[..., 6 * pairs :], everything[..., :pairs]], -1)
    )
