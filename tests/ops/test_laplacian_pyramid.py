"""The pyramid against the reference and against a convolution written out, its inverse and its gain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from polarjax.core import ConfigError
from polarjax.ops import laplacian_pyramid as pyramid

SIZES = [
    (3, 3),
    (4, 4),
    (5, 5),
    (6, 6),
    (7, 7),
    (8, 9),
    (9, 8),
    (3, 20),
    (13, 10),
    (16, 16),
    (17, 33),
    (26, 11),
]
BURT = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def analyse(x, n_levels, normalized):
    return jax.jit(lambda x: pyramid.laplacian_pyramid(x, n_levels, normalized=normalized))(x)


def images(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def blurred_and_halved(x):
    """Halves [H, W] with explicit correlations; 'mirror' reflects without repeating the edge. DC gain 1."""
    for axis in (0, 1):
        x = scipy.ndimage.correlate1d(x, BURT, axis=axis, mode="mirror")
    return x[::2, ::2]


def doubled(x, shape):
    """Doubles [h, w]: sample i is the sum of 2 taps[i - 2j + 2] x_j over j, one reflected sample at both ends."""
    for axis, n in enumerate(shape):
        rows = np.moveaxis(x, axis, 0)
        reflected = np.concatenate([rows[1:2], rows, rows[-2:-1]])
        wide = np.zeros((n, rows.shape[1]))
        for i in range(n):
            for j in range(-1, len(rows) + 1):
                if 0 <= i - 2 * j + 2 <= 4:
                    wide[i] += 2 * BURT[i - 2 * j + 2] * reflected[j + 1]
        x = np.moveaxis(wide, 0, axis)
    return x


@pytest.mark.parametrize(
    ("case", "n_levels", "normalized"),
    [
        ("33x33.C2.sf0.J4", 4, False),
        ("30x37.C1.sf0.J4", 4, False),
        ("51x51.C1.sf0.J4", 4, False),
        ("32x32.C1.sf0.J2", 2, False),
        ("32x32.C1.sf0.J3", 3, False),
        ("30x37.C1.sf1.J3", 3, True),
    ],
)
def test_levels_equal_the_reference(golden, case, n_levels, normalized):
    arrays = golden("polar/laplacian_pyramid")
    x = np.moveaxis(arrays[f"case.{case.rsplit('.', 2)[0]}.x"], 1, -1)
    for level, actual in enumerate(analyse(x, n_levels, normalized)):
        expected = np.moveaxis(arrays[f"case.{case}.level{level}"], 1, -1)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", ["33x33.C2", "30x37.C1"])
def test_levels_and_their_gradient_equal_the_reference_in_both_precisions(golden, precision, case):
    arrays = golden("polar/laplacian_pyramid")

    def level(name):
        return np.moveaxis(arrays[f"case.{case}.sf0.J4.{name}"], 1, -1)

    weights = [precision.array(level(f"w{i}")) for i in range(4)]

    @jax.jit
    def levels_and_gradient(x):
        levels, pull_back = jax.vjp(lambda x: pyramid.laplacian_pyramid(x, 4, normalized=False), x)
        return levels, pull_back(weights)[0]

    x = precision.array(np.moveaxis(arrays[f"case.{case}.x"], 1, -1))
    levels, gradient = levels_and_gradient(x)
    for i, actual in enumerate(levels):
        precision.assert_value(actual, level(f"level{i}{precision.suffix}"), f"level {i}")
    precision.assert_gradient(gradient, level(f"dx{precision.suffix}"))


def test_the_gradient_of_normalized_levels_equals_the_reference(golden):
    arrays = golden("polar/laplacian_pyramid")
    prefix = "case.30x37.C1.sf1.J3."
    case = {
        key.removeprefix(prefix): np.moveaxis(arrays[key], 1, -1) for key in arrays if key.startswith(prefix)
    }

    def loss(x):
        levels = pyramid.laplacian_pyramid(x, 3, normalized=True)
        return sum((case[f"w{i}"] * level).sum() for i, level in enumerate(levels))

    gradient = jax.jit(jax.grad(loss))(np.moveaxis(arrays["case.30x37.C1.x"], 1, -1))
    np.testing.assert_allclose(gradient, case["dx"], rtol=1e-3, atol=1e-5 * np.abs(case["dx"]).max())


@pytest.mark.parametrize("normalized", [True, False])
def test_the_gradient_is_the_adjoint_of_the_linear_pyramid(normalized):
    with jax.enable_x64(True):
        random = np.random.default_rng(2)
        x = jnp.asarray(random.normal(size=(2, 14, 19, 1)))
        weights = [jnp.asarray(random.normal(size=(2, *shape, 1))) for shape in ((14, 19), (7, 10), (4, 5))]

        @jax.jit
        def both_sides(x):
            levels, pull_back = jax.vjp(lambda x: pyramid.laplacian_pyramid(x, 3, normalized=normalized), x)
            return sum(jnp.vdot(w, level) for w, level in zip(weights, levels, strict=True)), pull_back(
                weights
            )[0]

        weighted, gradient = both_sides(x)
        np.testing.assert_allclose(jnp.vdot(gradient, x), weighted, rtol=1e-12)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_level_equals_an_explicit_convolution(normalized):
    x = images((1, 13, 18, 1))
    fine, middle, coarse = (np.asarray(level)[0, :, :, 0] for level in analyse(x, 3, normalized))
    image = np.asarray(x, np.float64)[0, :, :, 0]
    half = blurred_and_halved(image)
    quarter = blurred_and_halved(half)
    gain = 1 if normalized else 2
    np.testing.assert_allclose(fine, image - doubled(half, image.shape), atol=2e-6)
    np.testing.assert_allclose(middle, gain * (half - doubled(quarter, half.shape)), atol=4e-6)
    np.testing.assert_allclose(coarse, gain**2 * quarter, atol=8e-6)


@pytest.mark.parametrize("normalized", [True, False])
def test_every_size_is_rebuilt_at_its_largest_number_of_levels(normalized):
    frames = [images((2, *size, 2), seed=sum(size)) for size in SIZES]

    @jax.jit
    def there_and_back(frames):
        levels = [
            pyramid.laplacian_pyramid(x, pyramid.largest_n_levels(*x.shape[1:3]), normalized=normalized)
            for x in frames
        ]
        return levels, [pyramid.reconstruct(x, normalized=normalized) for x in levels]

    levels, rebuilt = there_and_back(frames)
    for size, parts, x, back in zip(SIZES, levels, frames, rebuilt, strict=True):
        np.testing.assert_allclose(back, x, atol=2e-6, err_msg=str(size))
        for i, part in enumerate(parts):
            assert part.shape == (2, -(-size[0] // 2**i), -(-size[1] // 2**i), 2)


def test_a_single_level_is_the_image():
    x = images((2, 6, 7, 1))
    (level,) = pyramid.laplacian_pyramid(x, 1, normalized=True)
    np.testing.assert_array_equal(level, x)


def test_a_constant_image_keeps_its_value_when_normalized():
    *bands, rest = analyse(jnp.full((1, 21, 34, 1), 3.0), 4, True)
    np.testing.assert_allclose(rest, 3, rtol=1e-6)
    for band in bands:
        np.testing.assert_allclose(band, 0, atol=3e-6)


def test_a_constant_image_doubles_at_every_level_of_the_reference(golden):
    levels = analyse(jnp.ones((1, 51, 51, 1)), 4, False)
    means = [float(level.mean()) for level in levels]
    np.testing.assert_allclose(means, golden("polar/laplacian_pyramid")["dc.51x51.sf0"], atol=2e-5)
    np.testing.assert_allclose(levels[-1], 2**3, rtol=1e-6)


def test_the_taps_are_those_of_the_reference(golden):
    np.testing.assert_allclose(pyramid.TAPS, golden("polar/laplacian_pyramid")["filter1d"][:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "largest"),
    [(1, 9, 0), (2, 2, 0), (3, 3, 1), (4, 4, 1), (5, 5, 2), (6, 50, 2), (9, 9, 3), (33, 33, 5), (51, 51, 5)],
)
def test_the_largest_number_of_levels_leaves_three_samples_a_side(height, width, largest):
    assert pyramid.largest_n_levels(height, width) == largest


def test_a_frame_too_small_names_its_size_and_the_largest_number_of_levels():
    with pytest.raises(ConfigError, match=r"5 x 5 pixels supports at most 2 pyramid levels, got 4.*n_levels"):
        pyramid.laplacian_pyramid(jnp.zeros((1, 5, 5, 1)), 4, normalized=True)


def test_zero_levels_are_refused():
    with pytest.raises(ConfigError, match="got 0"):
        pyramid.check_n_levels(16, 16, 0)
