"""Readout windows against the reference and plain loops; where they lie and what they sum to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import gaussian_pooling as ops

N_LEVELS = 4
MASK = jax.jit(ops.correlated_gaussian, static_argnums=3)


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def levels(arrays, case, cast, suffix=""):
    """Returns {name: array} of each level of a reference readout, in our layout."""
    found = []
    for i in range(N_LEVELS):
        p = {name: arrays[f"{case}.readouts.{i}.{name}{suffix}"] for name in ("mu", "logsx", "logsy", "rho")}
        weight = arrays[f"{case}.readouts.{i}.features.weight{suffix}"][:, :, 0, 0]
        log_width = np.stack([p["logsx"], p["logsy"]], -1)
        found.append({"mean": p["mu"], "log_width": log_width, "correlation": p["rho"], "weight": weight})
    return jax.tree.map(cast, found)


def contributions(parameters, features):
    parts = []
    for p, maps in zip(parameters, features, strict=True):
        mask = ops.correlated_gaussian(p["mean"], p["log_width"], p["correlation"], maps.shape[1:3])
        pooled = ops.pool(jnp.moveaxis(maps, 0, 2)[None, None], mask[None])[0, 0]
        parts.append(jnp.einsum("nbd,nd->bn", pooled, p["weight"], precision="highest"))
    return parts


def magnitudes(parameters, features):
    """Returns sum |G f W| of each level, which the rounding of a pooled sum is relative to; G is positive."""
    absolute = [p | {"weight": abs(p["weight"])} for p in parameters]
    return contributions(absolute, [abs(maps) for maps in features])


@pytest.mark.parametrize("case", ["default", "random"])
def test_the_readout_and_its_gradients_equal_the_reference(golden, precision, case):
    arrays = golden("polar/gaussian_readout")
    features = [precision.array(np.moveaxis(arrays[f"feat{i}"], 1, -1)) for i in range(N_LEVELS)]
    parameters = levels(arrays, f"{case}.p", precision.array)

    @jax.jit
    def parts_and_jacobian(parameters, features):
        """Pulls every single output back: the gradient of any weights is a sum over these."""

        def parts_and_total(parameters, middle):
            parts = contributions(parameters, [features[0], middle, *features[2:]])
            return sum(parts), parts

        total, pull_back, parts = jax.vjp(parts_and_total, parameters, features[1], has_aux=True)
        each = jnp.eye(total.size, dtype=total.dtype).reshape(total.size, *total.shape)
        return parts, magnitudes(parameters, features), jax.vmap(pull_back)(each)

    parts, largest, (jacobian, middle_jacobian) = parts_and_jacobian(parameters, features)
    for i, part in enumerate(parts):
        expected = arrays[f"{case}.part{i}{precision.suffix}"]
        # A part sums up to H W masked pixels times channels, which cancel: float32 rounds each term.
        rounding = 4 * np.finfo(precision.dtype).eps * largest[i]
        assert (abs(part - expected) <= precision.value * abs(expected) + precision.value + rounding).all()
    expected = levels(arrays, f"{case}.grad", np.asarray, precision.suffix)
    weights = arrays[f"{case}.w"].astype(precision.dtype).ravel()
    if precision.dtype is np.float64:
        weights = recovered_weights(jacobian, expected, weights)
    for level, (rows, exact) in enumerate(zip(jacobian, expected, strict=True)):
        for name in exact:
            actual = np.tensordot(weights, rows[name], 1)
            floor = (1e-5 if precision.dtype is np.float32 else 1e-9) * abs(exact[name]).max()
            np.testing.assert_allclose(
                actual, exact[name], rtol=precision.gradient, atol=floor, err_msg=f"level {level} {name}"
            )
    if case == "random":
        exact = np.moveaxis(arrays[f"random.dfeat1{precision.suffix}"], 1, -1)
        precision.assert_gradient(np.tensordot(weights, middle_jacobian, 1), exact, "features")


def recovered_weights(jacobian, expected, stored):
    """Solves the float64 gradients of the channel weights for the float64 weights that the file keeps rounded."""
    rows = np.concatenate([np.asarray(level["weight"]).reshape(len(stored), -1) for level in jacobian], 1)
    gradient = np.concatenate([level["weight"].ravel() for level in expected])
    weights = np.linalg.lstsq(rows.T, gradient)[0]
    np.testing.assert_array_equal(weights.astype(np.float32), stored.astype(np.float32))
    return weights


def test_the_mask_of_the_reference_is_its_formula_written_out():
    mean, width, correlation = (0.2, -0.3), (0.5, 0.8), 0.4
    mask = MASK(*single([mean], np.log([width]), [correlation]), (5, 4))
    r = np.tanh(correlation)
    for row, y in enumerate(np.linspace(-1, 1, 5)):
        for column, x in enumerate(np.linspace(-1, 1, 4)):
            u, v = (x - mean[0]) / (width[0] + 1e-6), (y - mean[1]) / (width[1] + 1e-6)
            expected = np.exp(-(u**2 + v**2 - 2 * r * u * v) / (2 * (1 - r**2 + 1e-6)))
            np.testing.assert_allclose(np.asarray(mask)[0, row, column], expected, rtol=1e-5)


def test_the_default_mask_of_the_reference_is_a_plain_sum(golden):
    mask = np.asarray(MASK(*single(np.zeros((1, 2)), np.full((1, 2), np.log(5.0)), np.zeros(1)), (51, 51)))
    np.testing.assert_allclose(
        mask.sum(), golden("polar/gaussian_readout")["default_mask_sum_51"][0, 0], rtol=1e-5
    )
    assert mask.min() > 0.95


def test_a_level_of_one_pixel_lies_at_minus_1(golden):
    np.testing.assert_array_equal(golden("polar/gaussian_readout")["grid_1x1"], -1)
    at_pixel = MASK(*single(np.full((1, 2), -1.0), np.zeros((1, 2)), np.zeros(1)), (1, 1))
    np.testing.assert_array_equal(at_pixel, 1)


def windows(mean, width, angle, level_shape=(26, 31), frame_shape=(26, 31), stride=1, pixels_per_degree=10.0):
    """Returns windows [N, H, W] and the positions of their samples, degrees."""
    positions = ops.level_positions(level_shape, frame_shape, stride, pixels_per_degree)
    window = jax.jit(ops.normalized_gaussian)(*single(mean, np.log(width), angle), tuple(single(*positions)))
    return np.asarray(window), positions


def test_a_normalized_window_sums_to_1_and_is_centred_and_shaped_as_asked():
    mean = np.array([[0.0, 0.0], [0.3, -0.2], [-0.4, 0.25]])
    width, angle = np.array([[0.2, 0.2], [0.3, 0.15], [0.15, 0.25]]), np.array([0.0, 0.0, 0.6])
    window, (x, y) = windows(mean, width, angle, (61, 71), (61, 71), pixels_per_degree=20.0)
    window = np.asarray(window, np.float64)
    np.testing.assert_allclose(window.sum((1, 2)), 1, rtol=1e-5)
    centre = np.stack([np.einsum("nhw,w->n", window, x), np.einsum("nhw,h->n", window, y)], -1)
    np.testing.assert_allclose(centre, mean, atol=0.01)
    offset = np.stack(
        np.broadcast_arrays(x[None, None] - mean[:, :1, None], y[None, :, None] - mean[:, 1:, None])
    )
    covariance = np.einsum("nhw,anhw,bnhw->nab", window, offset, offset)
    axes = np.stack(
        [np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)], 1
    )
    expected = np.einsum("nia,ni,nib->nab", axes, width**2, axes)
    np.testing.assert_allclose(covariance, expected, atol=0.004)


def test_a_normalized_window_is_its_formula_written_out():
    mean, width, angle = (0.3, -0.5), (0.4, 0.9), 0.7
    window, (xs, ys) = windows(
        [mean], np.array([width]), [angle], (5, 6), (9, 11), stride=2, pixels_per_degree=4.0
    )
    heights = np.zeros((5, 6))
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            u = (np.cos(angle) * (x - mean[0]) + np.sin(angle) * (y - mean[1])) / width[0]
            v = (-np.sin(angle) * (x - mean[0]) + np.cos(angle) * (y - mean[1])) / width[1]
            heights[row, column] = np.exp(-(u**2 + v**2) / 2)
    np.testing.assert_allclose(window[0], heights / heights.sum(), rtol=1e-4, atol=1e-7)


def test_a_window_far_outside_or_very_narrow_is_finite_with_finite_gradients():
    positions = tuple(jnp.asarray(p, jnp.float32) for p in ops.level_positions((7, 7), (7, 7), 1, 10.0))

    def loss(mean, log_width, angle):
        window = ops.normalized_gaussian(mean, log_width, angle, positions)
        return (window**2).sum(), window

    arguments = (
        jnp.array([[40.0, -3.0], [0.01, 0.02]]),
        jnp.log(jnp.array([[0.1, 0.1], [1e-3, 1e-3]])),
        jnp.zeros(2),
    )
    (_, window), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)
    np.testing.assert_allclose(window.sum((1, 2)), 1, rtol=1e-5)
    assert all(bool(jnp.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("frame_shape", [(51, 51), (32, 37)])
def test_the_samples_of_all_levels_are_co_registered(frame_shape):
    fine_x, fine_y = ops.level_positions(frame_shape, frame_shape, 1, 8.0)
    for stride in (2, 4, 8):
        shape = tuple(-(-side // stride) for side in frame_shape)
        x, y = ops.level_positions(shape, frame_shape, stride, 8.0)
        np.testing.assert_allclose(x, fine_x[::stride], atol=1e-12)
        np.testing.assert_allclose(y, fine_y[::stride], atol=1e-12)


def test_positions_are_degrees_from_the_centre_with_x_right_and_y_up():
    x, y = ops.level_positions((5, 7), (5, 7), 1, 2.0)
    np.testing.assert_allclose(x, [-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    np.testing.assert_allclose(y, [1, 0.5, 0, -0.5, -1])


def test_pooling_equals_a_loop_over_sessions_units_and_pixels():
    random = np.random.default_rng(16)
    features, window = random.normal(size=(3, 2, 3, 4, 5, 6)), random.uniform(size=(2, 7, 3, 4))
    actual = jax.jit(ops.pool)(*single(features, window))
    expected = np.zeros((3, 2, 7, 5, 6))
    for session, unit, row, column in np.ndindex(2, 7, 3, 4):
        expected[:, session, unit] += window[session, unit, row, column] * features[:, session, row, column]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_mixing_after_pooling_equals_mixing_before():
    random = np.random.default_rng(17)
    features, window, mixing = single(
        *(random.normal(size=shape) for shape in ((1, 1, 3, 4, 2, 5), (1, 7, 3, 4), (5, 2)))
    )
    before, after = jax.jit(
        lambda: (ops.pool(features @ mixing, window), ops.pool(features, window) @ mixing)
    )()
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_maps_pooled_together_and_their_slopes_are_those_of_the_product():
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        window, *maps = (jnp.asarray(random.standard_normal(shape)) for shape in ((3, 7), (7, 2), (7, 2)))
        slopes = tuple(jnp.asarray(random.standard_normal((3, x.shape[1]))) for x in maps)
        found, pull = jax.vjp(ops.pool_flat, window, tuple(maps))
        expected, pull_plainly = jax.vjp(
            lambda window, maps: tuple(jnp.einsum("wp,pm->wm", window, x) for x in maps), window, tuple(maps)
        )
        given, wanted = (found, pull(slopes)), (expected, pull_plainly(slopes))
        for part, other in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-12)
