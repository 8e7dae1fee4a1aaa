"""The residual network with a convolutional GRU: segments against windows, memory, sessions, options, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.residual_options import first_pixel
from polarjax.models.resnet_convgru import ResnetConvGRU
from polarjax.ops.gaussian_pooling import level_positions

TINY = {
    "n_units": (2, 3),
    "frame_shape": (15, 14, 1),
    "dt": 1 / 240,
    "pixels_per_degree": 10.0,
    "initial_rate": ((0.5,) * 3, (2.0,) * 3),
    "channels": (3, 4),
    "kernel_sizes": (5, 3),
    "reductions": (1, 2),
    "hidden": 4,
    "code_width": 4,
}
LEARNED = {
    "frontend_filters": 2,
    "channels": (3, 4, 3),
    "kernel_sizes": (3, 3, 3),
    "strides": (2, 1, 1),
    "pools": (0, 2, 1),
    "dilations": (1, 1, 2),
    "reductions": (1, 2, 2),
}
VARIANTS = {"plain": {}, "learned": LEARNED, "without gaze": {"gaze": "none"}}


def make(**options):
    """Returns a module and variables that are not neutral."""
    module = ResnetConvGRU(**TINY | options)
    movie = (jnp.zeros((2, 1, 15, 14, 1)), jnp.zeros((2, 1, 2)))
    shapes = jax.eval_shape(module.init, jax.random.key(0), *movie)
    random = np.random.default_rng(0)
    return module, jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype), shapes
    )


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=("method", "n_predicted"),
)
def apply(module, variables, *movie, method, n_predicted=None, rngs=None):
    given = movie if n_predicted is None else (*movie, n_predicted)
    return module.apply(variables, *given, method=method, rngs=rngs)


def draw(n_frames, batch=4):
    random = np.random.default_rng(1)
    gaze = random.normal(0, 0.05, (batch, n_frames, 2)).cumsum(1)
    stimulus = random.uniform(-0.5, 0.5, (batch, n_frames, 15, 14, 1))
    return jnp.asarray(stimulus, jnp.float32), jnp.asarray(gaze, jnp.float32)


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def model(request):
    return make(**request.param)


def predict(model, stimulus, gaze, n_predicted):
    module, variables = model
    log_rate, _ = apply(module, variables, stimulus, gaze, method="predict", n_predicted=n_predicted)
    return np.asarray(log_rate)


def test_every_rate_of_a_segment_is_that_of_the_strided_network_on_the_window_that_ends_there(model):
    first = model[0].first_frame
    stimulus, gaze = draw(first + 9)
    segment = predict(model, stimulus, gaze, 9)
    for frame in (3, 6):
        end = first + frame + 1
        window = predict(model, stimulus[:, :end], gaze[:, :end], 1)
        np.testing.assert_allclose(segment[:, frame], window[:, 0], rtol=1e-4, atol=1e-5)


def test_a_movie_in_parts_with_the_memory_handed_on_is_the_segment(model):
    module, variables = model
    first = module.first_frame
    stimulus, gaze = draw(first + 9)
    rates, memory = [], module.apply(variables, 4, (15, 14), method="initial_memory")
    for part in (slice(0, first + 3), slice(first + 3, None)):
        memory, log_rate, _ = apply(
            module, variables, stimulus[:, part], gaze[:, part], memory, method="advance"
        )
        rates.append(log_rate)
    whole = predict(model, stimulus, gaze, 9)
    np.testing.assert_allclose(np.concatenate(rates, 1)[:, first:], whole, rtol=1e-4, atol=1e-5)


def test_a_later_frame_changes_no_rate(model):
    first = model[0].first_frame
    stimulus, gaze = draw(first + 8)
    before = predict(model, stimulus, gaze, 8)
    after = predict(model, stimulus.at[:, first + 4].add(1.0), gaze, 8)
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert (np.abs(after[:, 4] - before[:, 4]).max(-1) > 0).all()


def test_example_i_has_the_readout_of_session_i_modulo_their_number(model):
    module, variables = model
    stimulus, gaze = draw(module.first_frame + 1)
    whole = predict(model, stimulus, gaze, 1)
    for session in range(2):
        alone = module.clone(n_units=(3,), initial_rate=(module.initial_rate[session],))
        readout = jax.tree.map(lambda x, i=session: x[i : i + 1], variables["params"]["readout"])
        cut = {"params": {**variables["params"], "readout": readout}}
        rates = predict((alone, cut), stimulus[session::2], gaze[session::2], 1)
        np.testing.assert_allclose(rates, whole[session::2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_gradients_reach_every_parameter_and_weights_are_kernels(options):
    module, variables = make(**options)
    stimulus, gaze = draw(module.first_frame + 7)

    def loss(params):
        return (module.apply({"params": params}, stimulus, gaze, 6, method="predict")[0] ** 2).sum()

    slopes = jax.jit(jax.grad(loss))(variables["params"])
    for path, slope in jax.tree.leaves_with_path(slopes):
        assert np.isfinite(slope).all(), path
        assert np.abs(slope).max() > 0, path
    weights = [path[-1].key for path, leaf in jax.tree.leaves_with_path(slopes) if leaf.ndim > 3]
    assert set(weights) == {"kernel"}
    assert "readout" in slopes


def test_dropout_acts_where_there_is_a_key_and_nowhere_else():
    module, variables = make(dropout=0.5)
    stimulus, gaze = draw(6)
    given, key = (variables, stimulus, gaze), {"dropout": jax.random.key(0)}
    still = apply(module, *given, method="predict", n_predicted=3)[0]
    moved = apply(module, *given, method="predict", n_predicted=3, rngs=key)[0]
    assert np.abs(moved - still).max() > 1e-3
    undropped = apply(ResnetConvGRU(**TINY), *given, method="predict", n_predicted=3, rngs=key)[0]
    np.testing.assert_array_equal(undropped, still)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 48}, "hidden is 48; allowed are 1 to 32 and multiples of 32"),
        ({"channels": (3,)}, "one value a stage"),
        ({"kernel_sizes": (4, 3)}, "kernel_sizes holds .4.; allowed are odd"),
        ({"shortcut": "crooked"}, "shortcut is 'crooked'; allowed are aligned, reference"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed are numbers from 0"),
    ],
)
def test_an_option_out_of_its_choices_is_named_with_what_is_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_too_few_frames_for_the_frontend_are_named():
    model = make(**LEARNED)
    with pytest.raises(ConfigError, match="16 taps, so a segment must have at least 15 frames .*, got 8"):
        predict(model, *draw(10), 2)


def test_a_model_of_windows_predicts_their_last_frame_alone():
    model = make(shortcut="reference")
    stimulus, gaze = draw(9)
    assert predict(model, stimulus, gaze, 1).shape == (4, 1, 3)
    with pytest.raises(ConfigError, match=r"only the last frame of a window .*config\.data\.predicted"):
        predict(model, stimulus, gaze, 2)
    module, variables = model
    with pytest.raises(ConfigError, match="no segment and no stream"):
        module.apply(variables, stimulus[:, :1], gaze[:, :1], None, method="advance")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (0, 1)}, r"strides is \(0, 1\); allowed are whole numbers from 1 on"),
        ({"reductions": (1, 0)}, r"reductions is \(1, 0\); allowed are whole numbers from 1 on"),
        ({"pools": (-1, 0)}, r"pools is \(-1, 0\); allowed are whole numbers from 0 on"),
        ({"frontend_filters": -1}, "frontend_filters is -1; allowed are whole numbers from 0 on"),
        ({"frame_shape": (2, 2, 1)}, "Frames of 2 x 2 pixels are used up in stage 1"),
    ],
)
def test_stages_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


@pytest.mark.parametrize("side", [24, 25, 32, 51])
def test_a_unit_looks_where_its_position_says_on_frames_of_any_size(side):
    strides, pools = (2, 1), (0, 2)
    # Centres of pixels after a stride of 2, then of pairs of neighbours.
    strided = np.arange(side)[::2]
    pooled = (strided[:-1] + strided[1:])[::2] / 2
    x, y = level_positions((len(pooled),) * 2, (side, side), 4, 1.0, first_pixel(strides, pools))
    np.testing.assert_allclose(x, pooled - (side - 1) / 2)
    np.testing.assert_allclose(y, -x)


def test_without_gaze_a_model_of_gaze_says_so():
    module, variables = make()
    with pytest.raises(ConfigError, match="needs the gaze trace"):
        module.apply(variables, draw(3)[0])


def test_at_full_size_it_has_the_maps_that_the_reference_documents():
    module = ResnetConvGRU(
        n_units=(8,), frame_shape=(51, 51, 1), dt=1 / 240, pixels_per_degree=37.5, hidden=128
    )
    movie = (
        jax.ShapeDtypeStruct((1, 25, 51, 51, 1), np.float32),
        jax.ShapeDtypeStruct((1, 25, 2), np.float32),
    )
    shapes = jax.eval_shape(module.init, jax.random.key(0), *movie)["params"]
    assert shapes["stage_0"]["convolution"]["kernel"].shape == (3, 9, 9, 1, 128)
    assert shapes["stage_1"]["convolution"]["kernel"].shape == (3, 5, 5, 128, 256)
    assert shapes["gru"]["input"]["kernel"].shape == (3, 3, 256 + 32, 384)
    memory = jax.eval_shape(
        lambda params: module.apply({"params": params}, 1, (51, 51), method="initial_memory"), shapes
    )
    assert memory.hidden.shape == (13, 13, 1, 4, 128)
    log_rate, _ = jax.eval_shape(
        lambda params, *movie: module.apply({"params": params}, *movie), shapes, *movie
    )
    assert log_rate.shape == (1, 8)
