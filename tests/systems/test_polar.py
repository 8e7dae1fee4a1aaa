"""The polar system: statistics, losses over sessions, groups of parameters, one session out of several, streams."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from polarjax import losses, systems
from polarjax.core import Batch, ConfigError, DataInfo, SessionInfo
from polarjax.models import build, constants, inference
from polarjax.models.options import CHOICES
from polarjax.systems import polar

KEY = jax.random.key(0)
KWARGS = {"n_levels": 1, "n_pairs": 2, "kernel_size": 5, "code_width": 4}


def session(name, n_units):
    names = tuple(f"{name}{i}" for i in range(n_units))
    places = tuple((0.1 * i, -0.1) for i in range(n_units))
    counts = tuple(0.2 + 0.1 * i for i in range(n_units))
    return SessionInfo(name, "m", names, counts, places, "", "")


INFO = DataInfo((session("a", 3), session("b", 2)), 120.0, 10.0, (13, 13, 1))


def config_of(name="polar_v1", **kwargs):
    kwargs = kwargs if name == "linear_nonlinear" else {**KWARGS, **kwargs}
    model = {"name": name, "kwargs": kwargs}
    fields = {"system": "polar", "model": model, "loss": polar.poisson_loss()}
    fields |= {"optim": {"bounds": {}}, "train": {"num_steps": 10}}
    return ml_collections.ConfigDict(fields)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    stimulus = random.uniform(-0.5, 0.5, (4, 5, 13, 13, 1)).astype(np.float32)
    gaze = random.normal(0, 0.02, (4, 5, 2)).cumsum(1).astype(np.float32)
    spikes = random.poisson(0.5, (4, 3, 3)).astype(np.float32)
    valid = np.ones((4, 3, 3), np.float32)
    valid[1::2, :, 2] = 0
    spikes[1::2, :, 2] = 0
    return Batch(*map(jnp.asarray, (stimulus, gaze, spikes, valid)))


@pytest.fixture(scope="module")
def built(batch):
    system = systems.build(config_of(), INFO)
    return system, jax.jit(system.init)(jax.random.key(0), batch)


class State:
    """What a loss reads of the training state."""

    step, target_params = 0, None

    def __init__(self, variables):
        self.params = variables["params"]
        self.model_state = {"statistics": variables["statistics"]}


@pytest.fixture(scope="module")
def log_rate(built, batch):
    system, variables = built
    state = State(variables)
    return jax.jit(system.predict)(state.params, state.model_state, batch)


def test_features_of_the_first_batch_are_standardized_at_its_predicted_frames(built, batch):
    _, variables = built
    module = build.make_module(config_of(), INFO)
    _, _, intermediates = jax.jit(functools.partial(module.apply, method="advance"))(
        variables, batch.stimulus, batch.gaze, None
    )
    scored = intermediates["pooled"][:, -3:]
    mean, scale = variables["statistics"]["mean"], variables["statistics"]["scale"]
    np.testing.assert_allclose(mean, scored.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert np.all(scale >= 0.999 * scored.std((0, 1, 2)))
    standardized = (scored - mean[None, None, None]) / scale[None, None, None]
    assert np.abs(standardized.mean((0, 1, 2))).max() < 1e-3
    assert standardized.std((0, 1, 2)).max() < 1.001


def test_a_feature_that_does_not_vary_is_not_blown_up():
    pooled = jnp.concatenate(
        [jnp.full((2, 3, 2, 1, 1), 5.0), jnp.arange(12.0).reshape(2, 3, 2, 1, 1)], axis=-1
    )
    statistics = polar.feature_statistics(pooled)
    np.testing.assert_allclose(statistics["mean"], [[5.0, 5.5]])
    assert statistics["scale"][0, 0] > 1e-4


def test_rates_start_near_the_mean_counts_of_the_units(log_rate):
    expected = np.array([[0.2, 0.3, 0.4], [0.2, 0.3, 0.3]])[[0, 1, 0, 1], None]
    ratio = np.exp(log_rate)[:, :, :2] / expected[:, :, :2]
    assert log_rate.shape == (4, 3, 3)
    assert ratio.min() > 0.5
    assert ratio.max() < 2


def test_the_loss_weighs_sessions_alike_whatever_their_units(built, batch, log_rate):
    system, variables = built
    output = jax.jit(lambda params: system.loss(params, State({**variables, "params": params}), batch, KEY))
    per_session = [
        losses.poisson_nll(*(x[s::2] for x in (log_rate, batch.spikes, batch.valid))) for s in range(2)
    ]
    loss, scalars, *_ = output(variables["params"])
    np.testing.assert_allclose(loss, np.mean(per_session), rtol=1e-5)
    np.testing.assert_allclose(scalars["loss_poisson"], loss)


def test_units_that_pad_a_session_learn_nothing(built, batch):
    system, variables = built
    gradients = jax.jit(
        jax.grad(lambda params: system.loss(params, State({**variables, "params": params}), batch, KEY).loss)
    )(variables["params"])
    for leaf in gradients["readout"].values():
        np.testing.assert_array_equal(leaf[1, 2], 0)
        assert np.abs(leaf[1, :2]).max() > 0 or leaf is gradients["readout"]["angle"]
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()


def test_sums_over_a_split_become_its_metrics(built, batch):
    system, variables = built
    metrics = system.eval_metrics(
        jax.tree.map(np.asarray, jax.jit(lambda: system.eval_sums(State(variables), batch))())
    )
    assert set(metrics) == {"bits_per_spike", "bits_per_spike_median", "correlation", "units_left_out"}
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["units_left_out"] == 0


@pytest.mark.parametrize("index", [0, 1])
def test_one_session_alone_is_streamed_as_it_is_predicted_among_others(built, batch, log_rate, index):
    _, variables = built
    single = inference.select_session(variables, INFO, index, "polar_v1")
    n_units = len(INFO.sessions[index].unit_ids)
    assert single["params"]["readout"]["bias"].shape == (1, n_units)
    _, initial, advance = inference.make_predictors(config_of(), INFO, index)
    memory, streamed = initial(single, 2), []
    for frame in range(5):
        part = slice(frame, frame + 1)
        memory, rates = advance(single, memory, batch.stimulus[index::2, part], batch.gaze[index::2, part])
        streamed.append(rates)
    streamed = np.concatenate(streamed, axis=1)[:, -3:]
    np.testing.assert_allclose(streamed, log_rate[index::2, :, :n_units], rtol=1e-4, atol=1e-5)


OPTIONS = [{field: choice} for field, choices in CHOICES.items() for choice in choices]


@pytest.mark.parametrize("options", [*OPTIONS, {"standardize": False}], ids=str)
def test_every_parameter_of_every_option_has_the_group_that_its_place_says(batch, options):
    system = systems.build(config_of(**options), INFO)
    params = jax.eval_shape(system.init, jax.random.key(0), batch)["params"]
    groups = {name: set() for name in ("core", "readout", *constants.PLACES)}
    for path, _ in jax.tree.leaves_with_path(params):
        names = tuple(key.key for key in path)
        groups[system.param_group(names)].add(names[0])
    assert groups["readout"] == {"readout"}
    for name, (path, _) in constants.PLACES.items():
        assert groups[name] == ({path[0]} if path[1] in params.get(path[0], {}) else set())
    assert groups["core"] == set(params) - {"alphas", "rates", "readout"}
    assert "filters" in groups["core"]


def test_all_of_the_linear_nonlinear_model_is_readout(batch):
    system = systems.build(config_of("linear_nonlinear", n_lags=2), INFO)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    assert {system.param_group((name, "kernel")) for name in variables["params"]} == {"readout"}
    assert system.constants(variables["params"]) == {}
    assert not inference.needs_gaze(config_of("linear_nonlinear"), INFO)
    assert inference.needs_gaze(config_of(), INFO)


def test_constants_are_logged_with_their_memories_in_ms():
    values = {"lambda_fix": jnp.array(10.0), "lambda_sac": jnp.array(40.0), "alpha_fast": jnp.array(0.8)}
    actual = polar.natural_constants(values, 120.0)
    expected = {
        "temporal/lambda_fix": 10.0,
        "temporal/tau_fix_ms": 100.0,
        "temporal/lambda_sac": 40.0,
        "temporal/tau_sac_ms": 25.0,
        "temporal/alpha_fast": 0.8,
        "temporal/tau_fast_ms": -1000 / 120 / np.log(0.8),
    }
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6)


def test_constants_start_where_the_config_says():
    starts = systems.starting_constants(config_of(fixation_rate=5.0, summaries=("last", "slow")), INFO)
    assert starts["temporal/lambda_fix"] == pytest.approx(5.0)
    assert starts["temporal/tau_sac_ms"] == pytest.approx(25.0)
    assert "temporal/alpha_fast" not in starts
    assert systems.starting_constants(config_of("linear_nonlinear"), INFO) == {}


def test_lists_of_a_config_become_what_a_module_can_hash():
    module = build.make_module(config_of(summaries=["last", "even"]), INFO)
    assert module.summaries == ("last", "even")
    assert hash(module) == hash(build.make_module(config_of(summaries=("last", "even")), INFO))
    assert module.initial_mean[1] == ((0.0, -0.1), (0.1, -0.1), (0.0, 0.0))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("polar", {}, r"config.model.name is 'polar'; did you mean 'polar_v1'"),
        ("polar_v1", {"n_pair": 3}, r"kwargs.n_pair is no argument of 'polar_v1'; did you mean 'n_pairs'"),
        ("polar_v1", {"dt": 0.1}, r"kwargs.dt is no argument"),
        ("linear_nonlinear", {"n_lag": 3}, r"'linear_nonlinear'; did you mean 'n_lags'"),
    ],
)
def test_a_model_or_an_argument_that_does_not_exist_is_named(name, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        systems.build(config_of(name, **kwargs), INFO)


def test_a_system_or_a_loss_that_does_not_exist_is_named():
    config = config_of()
    config.loss.weights = ml_collections.ConfigDict({"poisson": 1.0, "rank": 0.5})
    with pytest.raises(
        ConfigError, match=r"must name exactly the loss terms poisson, zero_.*, got \['poisson', 'rank'\]"
    ):
        systems.build(config, INFO)
    config.system = "pola"
    with pytest.raises(ConfigError, match=r"config.system is 'pola'; did you mean 'polar'"):
        systems.build(config, INFO)


def test_a_session_without_units_may_come_before_those_with_units():
    info = DataInfo((session("a", 0), session("b", 2)), 120.0, 10.0, (13, 13, 1))
    module = polar.make_module(config_of(), info)
    assert module.n_units == (0, 2)
    assert np.shape(module.initial_mean) == (2, 2, 2)
    np.testing.assert_array_equal(module.initial_mean[1], info.sessions[1].position_deg)
