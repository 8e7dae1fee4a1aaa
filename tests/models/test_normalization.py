"""Divisive normalisation: what is divided, by which contrast, and that a model with it streams as it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.normalization import ContrastNormalization
from polarjax.ops.gaussian_pooling import level_positions, local_contrast
from tests.models.jitted import apply


def test_the_local_contrast_is_the_weighted_deviation_of_the_luminance():
    random = np.random.default_rng(0)
    frames = random.uniform(-0.5, 0.5, (4, 3, 5, 6, 2)).astype(np.float32)
    window = random.random((2, 3, 5, 6)).astype(np.float32)
    window /= window.sum((2, 3), keepdims=True)
    actual = local_contrast(jnp.asarray(frames), jnp.asarray(window))
    for example in range(4):
        for unit in range(3):
            weight = window[example % 2, unit][..., None]
            for frame in range(3):
                movie = frames[example, frame].astype(np.float64)
                mean = (weight * movie).sum((0, 1), keepdims=True)
                variance = (weight * (movie - mean) ** 2).sum((0, 1)).mean()
                np.testing.assert_allclose(actual[example, frame, unit], np.sqrt(variance), rtol=1e-4)


def test_a_drive_is_divided_as_contrast_rises_and_the_bias_is_not():
    module = ContrastNormalization((1, 2), 0.3, 10.0, 1)
    random = np.random.default_rng(1)
    pattern = random.uniform(-0.5, 0.5, (1, 1, 9, 9, 1)).astype(np.float32)
    bias, mean = jnp.asarray([[0.5, -0.5]]), jnp.zeros((1, 2, 2))
    drive = jnp.asarray([[[2.0, 1.0]]])
    params = {
        "log_width": jnp.full((1, 2), np.log(0.3)),
        "log_semi_saturation": jnp.full((1, 2), np.log(0.2)),
    }
    blank = module.apply({"params": params}, drive, bias, jnp.zeros((1, 1, 9, 9, 1)), mean)
    np.testing.assert_allclose(blank - bias[None], 2 * (drive - bias[None]), rtol=0.01)
    weak = module.apply({"params": params}, drive, bias, jnp.asarray(0.5 * pattern), mean)
    strong = module.apply({"params": params}, drive, bias, jnp.asarray(pattern), mean)
    assert (abs(strong - bias[None]) < abs(weak - bias[None])).all()
    offset = jnp.tile(bias[None], (1, 1, 1))
    np.testing.assert_allclose(
        module.apply({"params": params}, offset, bias, jnp.asarray(pattern), mean), offset
    )


def test_a_normalized_model_predicts_the_last_frames_as_it_streams_them(make_model, make_movie):
    module, variables = make_model(normalization=True, n_units=(3, 2))
    stimulus, gaze = make_movie(batch=4)
    whole, _ = apply(module, variables, stimulus, gaze, then=(2,), method="predict")
    _, streamed, _ = apply(module, variables, stimulus, gaze, None, method="advance")
    np.testing.assert_allclose(whole, streamed[:, -2:], rtol=1e-4, atol=1e-5)
    plain = {name: leaf for name, leaf in variables["params"]["readout"].items() if name != "normalize"}
    without = {**variables, "params": {**variables["params"], "readout": plain}}
    other, _ = apply(module.clone(normalization=False), without, stimulus, gaze, then=(2,), method="predict")
    assert abs(whole - other).max() > 1e-2


def test_what_is_divided_is_the_weighted_sum_of_the_features_before_their_mean_is_taken_off(
    make_model, make_movie
):
    rates = ((0.1, 0.2, 0.3), (1.0, 2.0, 1.0))
    module, variables = make_model(normalization=True, n_units=(3, 2), initial_rate=rates)
    stimulus, gaze = make_movie(batch=4)
    actual, intermediates = apply(module, variables, stimulus, gaze, then=(2,), method="predict")
    readout, statistics = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
        for tree in (variables["params"]["readout"], variables["statistics"])
    )
    own = readout["normalize"]
    x, y = level_positions((13, 13), (13, 13), 1, module.pixels_per_degree)
    for example in range(4):
        session = example % 2
        for unit in range(3):
            weight = readout["kernel"][session, unit] / statistics["scale"]
            bias = readout["bias"][session, unit] - (weight * statistics["mean"]).sum()
            u, v = (
                place - centre
                for place, centre in zip((x[None], y[:, None]), readout["mean"][session, unit], strict=True)
            )
            window = np.exp(-(u**2 + v**2) / 2 / np.exp(own["log_width"][session, unit]) ** 2)
            window /= window.sum()
            half = np.exp(own["log_semi_saturation"][session, unit])
            for frame in range(2):
                image = np.asarray(stimulus[example, 4 + frame, ..., 0], np.float64)
                contrast = np.sqrt((window * image**2).sum() - (window * image).sum() ** 2)
                features = np.asarray(intermediates["pooled"][example, frame, unit], np.float64)
                drive = bias + (weight * features).sum() * 2 * half / (half + contrast)
                expected = np.log(rates[session][unit] * np.log1p(np.exp(drive)) + 1e-6)
                np.testing.assert_allclose(actual[example, frame, unit], expected, rtol=1e-3, atol=1e-4)


def test_a_unit_with_a_place_on_every_level_has_no_contrast(make_model):
    with pytest.raises(ConfigError, match="normalization is True with readout 'per_level'"):
        make_model(normalization=True, readout="per_level")
