"""Polar-V1 as a whole: one causal pass, memory, options, finite gradients at the edges, the sign of retinal slip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.options import CHOICES
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops import summaries

REFERENCE = {
    "filters": "separable",
    "pyramid_normalized": False,
    "gaze": "raw",
    "dynamics": "framewise",
    "retinal_slip": False,
    "pose_floor": 1e-6,
    "summaries": ("last", "fast", "slow", "derivative", "energy"),
    "bias_correction": False,
    "standardize": False,
    "readout": "per_level",
    "link": "exp",
}


@functools.partial(jax.jit, static_argnums=0)
def advance(module, variables, stimulus, gaze, memory):
    memory, log_rate, _ = module.apply(variables, stimulus, gaze, memory, method="advance")
    return memory, log_rate


def shapes_of(module, batch=2, n_frames=3, size=None):
    size = size or module.frame_shape
    arguments = (jnp.zeros((batch, n_frames, *size)), jnp.zeros((batch, n_frames, 2)))
    return jax.eval_shape(lambda *movie: module.init_with_output(jax.random.key(0), *movie), *arguments)


def double(leaf):
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"n_levels": 2},
        {"gaze_gain": True, "saccade_gate": "speed"},
        {"pose_memory": False},
        {"dynamics": "framewise"},
        {"dynamics": "none"},
        {"start": "drive", "recurrence": "associative", "frames_per_chunk": 3},
    ],
)
def test_windows_and_parts_with_the_memory_handed_on_predict_what_the_whole_segment_does(
    make_model, make_movie, options
):
    module, variables = make_model(**options)
    # A unit phase has the error of its pair over their amplitude, which is small at some pixels.
    with jax.enable_x64(True):
        memory = module.apply(variables, 2, (13, 13), method="initial_memory")
        stimulus, gaze, variables, memory = jax.tree.map(double, (*make_movie(), variables, memory))
        whole_memory, whole = advance(module, variables, stimulus, gaze, None)
        memory, first = advance(module, variables, stimulus[:, :3], gaze[:, :3], memory)
        close(first, whole[:, :3], 1e-12)
        memory, second = advance(module, variables, stimulus[:, 3:], gaze[:, 3:], memory)
        close(second, whole[:, 3:], 1e-12)
        jax.tree.map(functools.partial(close, tolerance=1e-12), memory, whole_memory)


@functools.partial(jax.jit, static_argnums=0)
def rates_and_gradients(module, variables, stimulus, gaze):
    def total(params, stimulus, gaze):
        log_rate, _ = module.apply({**variables, "params": params}, stimulus, gaze)
        return (log_rate * jnp.arange(1.0, 1 + log_rate.size).reshape(log_rate.shape)).sum(), log_rate

    (_, log_rate), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(
        variables["params"], stimulus, gaze
    )
    return log_rate, gradients


def assert_close_to_largest(actual, expected, tolerance):
    for (path, found), wanted in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        allowed = tolerance * max(np.abs(wanted).max(), 1e-3)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed, err_msg=jax.tree_util.keystr(path))


def test_chunks_of_any_length_and_the_parallel_recurrence_give_the_same_values_and_gradients(
    make_model, make_movie
):
    movie = make_movie(n_frames=4)
    module, variables = make_model(frames_per_chunk=1)
    # What the accelerations hand back to the gaze, 1/dt^2 times a rate, nearly cancels.
    with jax.enable_x64(True):
        movie, variables = jax.tree.map(double, (movie, variables))
        expected = rates_and_gradients(module, variables, *movie)
        for options in ({"frames_per_chunk": 2}, {"frames_per_chunk": 4, "recurrence": "associative"}):
            actual = rates_and_gradients(module.clone(**options), variables, *movie)
            np.testing.assert_allclose(actual[0], expected[0], rtol=1e-9)
            assert_close_to_largest(actual[1], expected[1], 1e-8)


def test_no_rate_depends_on_a_later_frame(make_model, make_movie):
    module, variables = make_model()
    stimulus, gaze = make_movie()

    @jax.jit
    def slope(stimulus, gaze):
        def third(stimulus, gaze):
            _, log_rate, _ = module.apply(variables, stimulus, gaze, None, method="advance")
            return log_rate[:, 2].sum()

        return jax.grad(third, (0, 1))(stimulus, gaze)

    for gradient in slope(stimulus, gaze):
        per_frame = np.abs(np.asarray(gradient)).reshape(2, 6, -1).max((0, 2))
        assert (per_frame[:3] > 0).all()
        np.testing.assert_array_equal(per_frame[3:], 0)


@pytest.mark.parametrize(
    ("options", "n_frames"),
    [
        ({"summaries": summaries.NAMES}, 3),
        ({"start": "drive", "n_units": (1,), "n_pairs": 1, "frame_shape": (12, 9, 1)}, 1),
        ({**REFERENCE, "frame_shape": (9, 14, 1)}, 3),
    ],
    ids=["ours", "small", "reference"],
)
def test_blank_frames_and_a_still_gaze_give_finite_rates_and_gradients(make_model, options, n_frames):
    module, variables = make_model(**options)
    stimulus, gaze = jnp.zeros((2, n_frames, *module.frame_shape)), jnp.zeros((2, n_frames, 2))
    for leaf in jax.tree.leaves(rates_and_gradients(module, variables, stimulus, gaze)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize(
    ("field", "choice"), [(field, choice) for field, choices in CHOICES.items() for choice in choices]
)
def test_every_choice_of_every_option_makes_a_model(field, choice):
    sizes = {"n_units": (3, 2), "frame_shape": (13, 13, 1), "dt": 0.01, "pixels_per_degree": 10.0}
    module = PolarV1(**sizes, n_levels=1, **{field: choice})
    (log_rate, _), _ = shapes_of(module)
    assert (log_rate.shape, log_rate.dtype) == ((2, 3), jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": "gabor"}, r"kwargs.filters is 'gabor'; allowed are dense, separable"),
        ({"dtype": "float16"}, r"kwargs.dtype is 'float16'; allowed are float32, bfloat16"),
        ({"summaries": ("last", "first")}, r"summaries holds \['first'\]; allowed are last"),
        ({"summaries": ()}, r"summaries holds \[\]; allowed are last"),
        ({"n_levels": 9}, r"13 x 13 pixels supports at most \d pyramid levels, got 9"),
    ],
)
def test_an_option_outside_its_choices_is_named(make_model, options, message):
    with pytest.raises(ConfigError, match=message):
        make_model(**options)


def test_the_parameters_have_documented_names_and_shapes():
    module = PolarV1(n_units=(5, 3), frame_shape=(51, 51, 1), dt=1 / 120, pixels_per_degree=37.5)
    _, variables = shapes_of(module)
    shapes = {
        "/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(variables)
    }
    core = {f"filters/{name}/kernel": (15, 15, 1, 64) for name in ("even", "odd")}
    core["resting_amplitude"] = (4, 64)
    for axis in "xy":
        core |= {f"gaze_encoder/log_frequency_{axis}": (2,), f"gaze_encoder/phase_{axis}": (2,)}
    core |= {"gaze_encoder/log_threshold": (), "gaze_encoder/sharpness": ()}
    dense = {"gaze_encoder/hidden": (20, 128), "gaze_encoder/code": (128, 128)}
    heads = {"first": 128, "second": 128, "gate": 1, "velocity": 2, "gain": 256, "offset": 256}
    dense |= {f"behavior_heads/{name}": (128, size) for name, size in heads.items()}
    for name, shape in dense.items():
        core |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
    temporal = dict.fromkeys(
        ("rates/log_fixation", "rates/log_saccade", "alphas/fast_logit", "alphas/slow_logit"), ()
    )
    readout = {
        "mean": (2, 5, 2),
        "log_width": (2, 5, 2),
        "angle": (2, 5),
        "kernel": (2, 5, 4, 448),
        "bias": (2, 5),
    }
    expected = core | temporal | {f"readout/{name}": shape for name, shape in readout.items()}
    expected = {f"params/{name}": shape for name, shape in expected.items()}
    assert shapes == expected | {"statistics/mean": (4, 448), "statistics/scale": (4, 448)}


def test_bfloat16_stays_near_float32_and_keeps_its_rates_in_float32(make_model, make_movie):
    module, variables = make_model()
    movie = make_movie()
    _, expected = advance(module, variables, *movie, None)
    _, actual = advance(module.clone(dtype="bfloat16"), variables, *movie, None)
    assert actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=5e-2, atol=5e-2 * np.abs(expected).max())


def test_constants_start_at_the_options_in_natural_units(make_model):
    module, _ = make_model(fixation_rate=5.0, saccade_rate=20.0, alpha_fast=0.8, alpha_slow=0.9)
    params = {
        "rates": {"log_fixation": jnp.zeros(()), "log_saccade": jnp.zeros(())},
        "alphas": {"fast_logit": jnp.log(4.0), "slow_logit": jnp.log(9.0)},
    }
    constants = module.time_constants(params)
    expected = {"lambda_fix": 5.0, "lambda_sac": 20.0, "alpha_fast": 0.8, "alpha_slow": 0.9}
    assert set(constants) == set(expected)
    for name, value in expected.items():
        close(constants[name], value)


def test_the_newest_frame_is_the_last(make_model):
    module, variables = make_model(dynamics="none", summaries=("last",), standardize=False)
    stimulus = np.zeros((1, 4, 13, 13, 1), np.float32)
    stimulus[:, -1, 6, 6] = 0.5
    _, log_rate = advance(module, variables, jnp.asarray(stimulus), None, None)
    np.testing.assert_allclose(log_rate[:, :3], log_rate[:, :1].repeat(3, 1), rtol=1e-6)
    assert np.abs(log_rate[:, 3] - log_rate[:, 2]).max() > 1e-4


def test_example_i_is_read_by_session_i_modulo_the_number_of_sessions(make_model, make_movie):
    module, variables = make_model(n_units=(3, 2), initial_rate=((0.1, 0.2, 0.3), (1.0, 2.0, 1.0)))
    stimulus, gaze = make_movie(batch=4)
    _, together = advance(module, variables, stimulus, gaze, None)
    params = variables["params"]
    readout = {name: leaf[1:, :2] for name, leaf in params["readout"].items()}
    alone = module.clone(n_units=(2,), initial_rate=((1.0, 2.0),))
    single = {**variables, "params": {**params, "readout": readout}}
    _, expected = advance(alone, single, stimulus[1::2], gaze[1::2], None)
    close(together[1::2, :, :2], expected)
    assert np.abs(together[::2, :, :2] - expected).max() > 0.1
