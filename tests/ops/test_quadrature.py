"""Filter pairs against the reference, their rank, and what makes two filters a quadrature pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import dynamics, polar_decomposition, quadrature

SIZE, PAIRS, FREQUENCY = 15, 8, 0.15


def movie(x):
    """Folds [B, C, T, H, W] to [B T, H, W, C]."""
    return np.moveaxis(x, 1, -1).reshape(-1, *x.shape[3:], x.shape[1])


def parameters(arrays, case, suffix=""):
    """Returns {name: array} of a reference bank in our layout."""
    member = {}
    for name in ("even", "odd"):
        member[f"spatial_{name}"] = arrays[f"{case}.dw_{name}.weight{suffix}"].transpose(2, 3, 1, 0)
        member[f"mixing_{name}"] = arrays[f"{case}.mix_{name}.weight{suffix}"][:, :, 0, 0].T
        member[f"bias_{name}"] = arrays[f"{case}.mix_{name}.bias{suffix}"]
    return member


def bank(p, x):
    return [
        quadrature.separable_quadrature(x, p[f"spatial_{name}"], p[f"mixing_{name}"], p[f"bias_{name}"])
        for name in ("even", "odd")
    ]


def gratings(frequency, angle, phases, size=SIZE):
    """Returns cos(2 pi f (x cos + y sin) - phase) [phases, size, size, 1], origin at the central pixel."""
    offsets = np.arange(size) - size // 2
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    carrier = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
    return np.cos(carrier[None] - np.asarray(phases)[:, None, None])[..., None]


def test_separable_bank_and_its_gradients_equal_the_reference(golden, precision):
    arrays = golden("polar/quadrature_filter_bank")
    cast = jax.tree.map(precision.array, parameters(arrays, "in2.k7.p"))
    x0, x1 = (precision.array(movie(arrays[f"in2.k7.x{level}"])) for level in (0, 1))
    weights = [precision.array(movie(arrays[f"in2.k7.w{i}"])) for i in range(4)]

    @jax.jit
    def responses_and_gradients(p, x1):
        def both(p, x1):
            (even0, odd0), (even1, odd1) = bank(p, x0), bank(p, x1)
            return [even0, even1, odd0, odd1]

        responses, pull_back = jax.vjp(both, p, x1)
        return responses, pull_back(weights)

    responses, (gradients, dx1) = responses_and_gradients(cast, x1)
    for name, actual in zip(("even0", "even1", "odd0", "odd1"), responses, strict=True):
        expected = movie(arrays[f"in2.k7.{name}"])
        np.testing.assert_allclose(actual[: len(expected)], expected, rtol=2e-5, atol=2e-5, err_msg=name)
    expected = parameters(arrays, "in2.k7.grad", precision.suffix)
    for name, actual in gradients.items():
        precision.assert_gradient(actual, expected[name], name)
    precision.assert_gradient(dx1, movie(arrays[f"in2.k7.dx1{precision.suffix}"]), "dx1")


def test_responses_equal_the_reference_in_float64(golden):
    arrays = golden("polar/quadrature_filter_bank")
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), parameters(arrays, "in1.k7.p"))
        responses = bank(double, jnp.asarray(movie(arrays["in1.k7.x1"]), jnp.float64))
        for name, actual in zip(("even1", "odd1"), responses, strict=True):
            np.testing.assert_allclose(actual, movie(arrays[f"in1.k7.{name}.f64"]), rtol=1e-9, atol=1e-12)


def test_a_kernel_of_15_pixels_on_one_channel_equals_the_reference(golden, precision):
    arrays = golden("polar/quadrature_filter_bank")
    cast = jax.tree.map(precision.array, parameters(arrays, "in1.k15.p"))
    weights = [precision.array(movie(arrays[f"in1.k15.w{i}"])) for i in (1, 3)]

    @jax.jit
    def responses_and_gradient(x):
        responses, pull_back = jax.vjp(lambda x: bank(cast, x), x)
        return responses, pull_back(weights)[0]

    responses, gradient = responses_and_gradient(precision.array(movie(arrays["in1.k15.x1"])))
    for name, actual in zip(("even1", "odd1"), responses, strict=True):
        np.testing.assert_allclose(actual, movie(arrays[f"in1.k15.{name}"]), rtol=2e-5, atol=2e-5)
    precision.assert_gradient(gradient, movie(arrays[f"in1.k15.dx1{precision.suffix}"]))


def test_a_separable_bank_on_one_channel_has_rank_1_and_a_dense_one_has_rank_m():
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    x = draw(1, 20, 20, 1)
    member = (draw(5, 5, 1, 1), draw(1, PAIRS), jnp.zeros(PAIRS))
    separable = jax.jit(quadrature.separable_quadrature)(x, *member)
    kernels = (
        jnp.asarray(kernel, jnp.float32) for kernel in quadrature.gabor_pairs(SIZE, PAIRS, 1, FREQUENCY)
    )
    even, odd = jax.jit(quadrature.dense_quadrature)(x, *kernels)

    def rank(maps):
        return np.linalg.matrix_rank(np.asarray(maps).reshape(-1, maps.shape[-1]), rtol=1e-4)

    assert rank(separable) == 1
    assert (rank(even), rank(odd), rank(np.concatenate([even, odd], -1))) == (PAIRS, PAIRS, 2 * PAIRS)


def test_both_banks_take_batch_axes_between_pixels_and_channels():
    random = np.random.default_rng(20)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    x, pair = draw(2, 6, 7, 3, 2), (draw(3, 3, 2, 4), draw(3, 3, 2, 4))
    member = (draw(3, 3, 1, 2), draw(2, 4), draw(4))

    @jax.jit
    def banks(x):
        return *quadrature.dense_quadrature(x, *pair), quadrature.separable_quadrature(x, *member)

    for together, alone in zip(banks(x), banks(x[:, :, :, 1]), strict=True):
        np.testing.assert_allclose(together[:, :, :, 1], alone, rtol=2e-5, atol=2e-5)


def test_strides_keep_every_second_sample_of_both_banks():
    random = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    x, pair = draw(2, 9, 10, 2), (draw(5, 5, 2, 3), draw(5, 5, 2, 3))
    member = (draw(5, 5, 1, 2), draw(2, 3), draw(3))

    @jax.jit
    def banks(x):
        dense = [quadrature.dense_quadrature(x, *pair, stride=stride)[1] for stride in (1, 2)]
        return dense, [quadrature.separable_quadrature(x, *member, stride=stride) for stride in (1, 2)]

    for full, strided in banks(x):
        np.testing.assert_allclose(strided, full[:, ::2, ::2], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "channels", "frequency"), [(15, 1, 0.15), (15, 2, 0.3), (7, 1, 0.2), (9, 3, 0.1)]
)
def test_gabor_pairs_have_unit_norm_and_zero_mean(size, channels, frequency):
    for kernels in quadrature.gabor_pairs(size, PAIRS, channels, frequency):
        assert kernels.shape == (size, size, channels, PAIRS)
        np.testing.assert_allclose(np.linalg.norm(kernels.reshape(-1, PAIRS), axis=0), 1, rtol=1e-12)
        np.testing.assert_allclose(kernels.sum((0, 1)), 0, atol=1e-12)


def test_the_energy_of_a_gabor_pair_does_not_depend_on_the_phase_of_its_grating():
    even, odd = (kernel[:, :, 0] for kernel in quadrature.gabor_pairs(SIZE, PAIRS, 1, FREQUENCY))
    phases = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for pair in range(PAIRS):
        images = gratings(FREQUENCY, np.pi * pair / PAIRS, phases)[..., 0]
        energy = np.einsum("pyx,yx->p", images, even[..., pair]) ** 2
        energy += np.einsum("pyx,yx->p", images, odd[..., pair]) ** 2
        assert np.ptp(energy) < 0.05 * energy.mean()


def test_a_gabor_pair_prefers_its_own_grating():
    frequencies = (0.05, 0.1, 0.15, 0.2, 0.25)
    waves = [
        gratings(frequency, np.pi * m / PAIRS, [0, np.pi / 2])[..., 0]
        for m in range(PAIRS)
        for frequency in frequencies
    ]
    energy = sum(
        np.einsum("gpyx,yxm->gpm", np.stack(waves), kernel[:, :, 0]) ** 2
        for kernel in quadrature.gabor_pairs(SIZE, PAIRS, 1, FREQUENCY)
    ).sum(1)
    best = [m * len(frequencies) + frequencies.index(FREQUENCY) for m in range(PAIRS)]
    np.testing.assert_array_equal(energy.argmax(0), best)


def test_a_moving_grating_turns_the_pose_of_its_pair_by_the_phase_step():
    dt, velocity, n_frames = 1 / 240, np.array([70.0, -40.0]), 12
    vectors = dynamics.wave_vectors(1, PAIRS, FREQUENCY)
    kernels = [
        jnp.asarray(kernel, jnp.float32) for kernel in quadrature.gabor_pairs(SIZE, PAIRS, 1, FREQUENCY)
    ]
    respond, ones = jax.jit(quadrature.dense_quadrature), jnp.ones((1, PAIRS))
    step = dynamics.phase_step(
        jnp.asarray(velocity, jnp.float32), jnp.asarray(vectors, jnp.float32), ones, 0 * ones, dt=dt
    )
    np.testing.assert_allclose(step, 2 * np.pi * vectors @ velocity * dt, rtol=1e-5, atol=1e-6)
    for pair in range(PAIRS):
        phases = 2 * np.pi * vectors[0, pair] @ velocity * dt * np.arange(n_frames)
        images = jnp.asarray(gratings(FREQUENCY, np.pi * pair / PAIRS, phases), jnp.float32)
        responses = respond(images, *kernels)
        even, odd = (response[:, SIZE // 2, SIZE // 2, pair] for response in responses)
        _, u_even, u_odd = polar_decomposition.decompose(even, odd)
        cosine, sine = (jnp.full(n_frames - 1, function(step[0, pair])) for function in (np.cos, np.sin))
        turned = dynamics.rotate(u_even[:-1], u_odd[:-1], cosine, sine)
        # The members of a pair differ by up to 1.6 % in gain, so the pose is that far from the exact circle.
        np.testing.assert_allclose(u_even[1:], turned[0], atol=0.02)
        np.testing.assert_allclose(u_odd[1:], turned[1], atol=0.02)
