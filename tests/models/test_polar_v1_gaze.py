"""What the gaze does to a Polar-V1: slip in physical units, the gate of the speed, the gain of every unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops.gaussian_pooling import level_positions
from polarjax.ops.polar_decomposition import decompose
from tests.models.jitted import apply


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_a_model_that_needs_gaze_refuses_to_go_without(make_model, make_movie):
    module, variables = make_model()
    with pytest.raises(
        ConfigError, match=r"needs the gaze trace \[B, T, 2\] in degrees .*'scaled'\), got none"
    ):
        module.apply(variables, make_movie()[0])


@pytest.mark.parametrize("options", [{"gaze": "none"}, {"dynamics": "none"}])
def test_a_model_without_gaze_takes_none(make_model, make_movie, options):
    module, variables = make_model(**options)
    assert not module.uses_gaze
    log_rate, _ = jax.eval_shape(module.apply, variables, make_movie()[0])
    assert log_rate.shape == (2, 3)


def test_the_gaze_code_scales_the_rate_of_every_unit(make_model, make_movie):
    options = {"gaze_gain": True, "n_units": (3, 2)}
    module, variables = make_model(**options)
    params = variables["params"]
    movie = make_movie(batch=4)
    with_gain, intermediates = apply(module, variables, *movie, then=(2,), method="predict")
    readout = {name: leaf for name, leaf in params["readout"].items() if name != "gain"}
    plain = {**variables, "params": {**params, "readout": readout}}
    without, _ = apply(module.clone(gaze_gain=False), plain, *movie, then=(2,), method="predict")
    code = intermediates["behavior"].code[:, -2:]
    for example in range(4):
        expected = without[example] + code[example] @ params["readout"]["gain"]["kernel"][example % 2].T
        close(with_gain[example], expected)


def test_without_memory_of_the_pose_simple_features_are_the_amplitude_times_the_pose_of_the_frame(
    make_model, make_movie
):
    options = {"pose_memory": False, "summaries": ("last", "even", "odd"), "standardize": False}
    module, variables = make_model(**options, saccade_gate="speed")
    assert "behavior_heads" not in variables["params"]
    stimulus, gaze = make_movie()

    def newest(module, image):
        amplitude, *pose = decompose(*module.bank(image), pose_floor=module.pose_floor)
        return amplitude, pose

    # A window of a single pixel around one place: pooled products are products of what is pooled.
    narrow = jnp.full_like(variables["params"]["readout"]["log_width"], -9.0)
    readout = {**variables["params"]["readout"], "log_width": narrow}
    variables = {**variables, "params": {**variables["params"], "readout": readout}}
    _, intermediates = apply(module, variables, stimulus, gaze, then=(2,), method="predict")
    last, even, odd = jnp.split(intermediates["pooled"][:, -1, :, 0], 3, axis=-1)
    _, pose = apply(module, variables, stimulus[:, -1], method=newest)
    column, row = (
        np.abs(x - np.asarray(readout["mean"])[0, :, i, None]).argmin(1)
        for i, x in enumerate(level_positions((13, 13), (13, 13), 1, module.pixels_per_degree))
    )
    for feature, unit in zip((even, odd), pose, strict=True):
        close(feature, last * unit[:, row, column], 1e-3)


def test_the_gate_of_the_speed_opens_at_20_degrees_a_second_whatever_was_learned(make_model, make_movie):
    module, variables = make_model(saccade_gate="speed")
    assert "gate" not in variables["params"]["behavior_heads"]
    stimulus, gaze = make_movie()
    _, intermediates = apply(module, variables, stimulus, gaze)
    speed = np.linalg.norm(np.diff(gaze, axis=1, prepend=gaze[:, :1]), axis=-1) * 120
    expected = 1 / (1 + np.exp(-0.2 * (speed - 20)))
    close(intermediates["behavior"].saccade_gate, expected, 1e-4)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 1.0)], ids=["right", "up"])
def test_retinal_slip_turns_the_pose_as_the_image_of_a_grating_does(direction):
    size, frequency, dt, pixels_per_degree = 33, 0.15, 1 / 120, 10.0
    module = PolarV1(
        n_units=(1,),
        frame_shape=(size, size, 1),
        dt=dt,
        pixels_per_degree=pixels_per_degree,
        n_levels=1,
        n_pairs=2,
        kernel_size=15,
        base_frequency=frequency,
    )
    # The eye drifts over a static grating whose luminance varies along the drift: pair 0 is vertical, 1 horizontal.
    pair = int(direction[1])
    drift = 5.0 * np.arange(4)[:, None] * dt * np.asarray(direction)
    x = np.arange(size) - size // 2
    columns, rows = np.meshgrid(x, x)
    place = [
        (columns + gaze[0] * pixels_per_degree) if pair == 0 else (rows - gaze[1] * pixels_per_degree)
        for gaze in drift
    ]
    stimulus = 0.5 * np.cos(2 * np.pi * frequency * np.stack(place))[None, ..., None]
    movie = (jnp.asarray(stimulus, jnp.float32), jnp.asarray(drift[None], jnp.float32))
    variables = jax.jit(module.init)(jax.random.key(0), movie[0][:, :1], movie[1][:, :1])

    def turn_and_responses(module, stimulus, gaze):
        memory = module.initial_memory(1, (size, size))
        motion, *_ = module._behave(gaze, memory, (1, 4), jnp.float32)
        return motion[3][0], module.bank(stimulus[0])

    (cosine, sine), (even, odd) = apply(module, variables, *movie, method=turn_and_responses)
    phase = np.unwrap(np.arctan2(odd, even)[:, size // 2, size // 2, pair])
    predicted = np.arctan2(sine, cosine)[0, :, 0, 0, pair]
    gain = 1 + np.log1p(np.exp(-4.0))
    close(predicted[1:], np.diff(phase) * gain, 0.02)
    assert np.abs(predicted[1:]).min() > 0.3
