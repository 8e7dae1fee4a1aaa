"""Weights of the reference in our model: its rates, losses and gradients; states and configs that do not fit."""

import contextlib
import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.interop.visioncore import import_model
from polarjax.ops import dynamics
from tests.interop.reference import FULL, STILL, config_of, state_of

# Plain code compiles in half the time; at level 0 it adds in an order that float32 gradients feel.
LEVELS = {np.float32: 1, np.float64: 0}
# JEPA adds its own gradients to those of all but the readout.
GRADIENTS_HOLD = {"polar_v1_jepa_only": ("readout",)}


def loss_and_gradients(module, params, batch):
    stimulus, gaze, spikes, valid = batch

    def loss(params):
        log_rate, _ = module.apply({"params": params}, jnp.moveaxis(stimulus, 1, -1), gaze)
        clipped = jnp.maximum(log_rate, -20)
        return ((jnp.exp(clipped) - spikes * clipped) * valid).sum() / valid.sum(), log_rate

    return jax.value_and_grad(loss, has_aux=True)(params)


compiled = {
    dtype: jax.jit(
        loss_and_gradients,
        static_argnums=0,
        compiler_options={"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False},
    )
    for dtype, level in LEVELS.items()
}


def expected_gradients(config, state, arrays, params):
    """Returns the reference's gradients in our layout, which is linear in all but the relaxation rates."""
    moved = {name: arrays.get(f"grad.{name}", value) for name, value in state.items()}
    fixed = {name: value for name, value in state.items() if "lambda" in name or "kxy" in name}
    _, gradients = import_model(config, moved | fixed)
    starts = {"log_fixation": ("lambda_fix", 10.0), "log_saccade": ("lambda_sac", 40.0)}
    for ours, (theirs, start) in starts.items() if "rates" in params else ():
        slope = start * jax.nn.sigmoid(params["rates"][ours]) / np.log(2.0)
        gradients["rates"][ours] = arrays[f"grad.recurrent.dynamics.{theirs}"] * slope
    return gradients


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, np.float32) for name in ("polar_v1", "polar_v1_relaxed")),
        *((name, np.float64) for name in (*FULL, *STILL) if name != "polar_v1_relaxed"),
    ],
)
def test_rates_loss_and_every_gradient_equal_the_reference(golden, monkeypatch, name, dtype):
    single = golden(f"polar/model_{name}")
    exact = single if name == "polar_v1_relaxed" else single | golden(f"polar/model_{name}_f64")
    config, state = config_of(name), state_of(single)
    double = dtype is np.float64
    value, gradient, floor = (1e-9, 1e-8, 1e-9) if double else (2e-5, 1e-3, 1e-5)
    if double and name in FULL:
        # The reference keeps its wave vectors in float32 whatever the precision, and they cancel in many sums.
        waves = state["recurrent.dynamics.kxy"].astype(np.float64)
        monkeypatch.setattr(dynamics, "wave_vectors", lambda *_: waves)
    batch = tuple(single[f"in.{key}"].astype(dtype) for key in ("stim", "gaze", "robs", "dfs"))
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        module, params = import_model(config, state)
        (loss, log_rate), gradients = compiled[dtype](module, params, batch)
        expected = expected_gradients(config, state, exact if double else single, params)
        rounding = jax.tree.map(
            lambda x, y: 4 * np.abs(x - y).max(), expected, expected_gradients(config, state, exact, params)
        )
    assert log_rate.dtype == dtype
    reference = exact if double else single
    np.testing.assert_allclose(log_rate, reference["out.rhat"], rtol=value, atol=value)
    np.testing.assert_allclose(loss, reference["out.loss"], rtol=value, atol=value)
    compared = GRADIENTS_HOLD.get(name, tuple(params))
    leaves = [jax.tree.leaves({part: tree[part] for part in compared}) for tree in (expected, rounding)]
    actual = jax.tree.leaves_with_path({part: gradients[part] for part in compared})
    for (path, found), wanted, error in zip(actual, *leaves, strict=True):
        # Where terms cancel the reference's own float32 gradients are off by `rounding`.
        allowed = floor * np.abs(wanted).max() + error
        named = jax.tree_util.keystr(path)
        np.testing.assert_allclose(found, wanted, rtol=gradient, atol=allowed, err_msg=named)


@pytest.mark.parametrize("name", FULL)
def test_learned_constants_are_those_of_the_state(golden, name):
    state = state_of(golden(f"polar/model_{name}"))
    module, params = import_model(config_of(name), state)
    constants = module.time_constants(params)
    for ours in ("lambda_fix", "lambda_sac"):
        np.testing.assert_allclose(constants[ours], state[f"recurrent.dynamics.{ours}"], rtol=1e-6)
    for ours in ("alpha_fast", "alpha_slow"):
        logit = state[f"recurrent.summarizer.{ours}_logit"]
        np.testing.assert_allclose(constants[ours], 1 / (1 + np.exp(-logit)), rtol=1e-6)


@pytest.fixture
def relaxed(golden):
    return config_of("polar_v1_relaxed"), state_of(golden("polar/model_polar_v1_relaxed"))


@pytest.fixture
def minimal(golden):
    return config_of("polar_v1_minimal"), state_of(golden("polar/model_polar_v1_minimal"))


def assert_same(imported, other):
    assert imported[0] == other[0]
    jax.tree.map(np.testing.assert_array_equal, imported[1], other[1])


def test_the_prefix_and_the_duplicates_of_the_state_change_nothing(relaxed):
    config, state = relaxed
    plain = import_model(config, state)
    duplicates = {
        f"recurrent.{name}": value for name, value in state.items() if name.startswith("modulator.")
    }
    assert len(duplicates) > 10
    assert_same(import_model(config, state | duplicates), plain)
    prefixed = {f"model.{name}": value for name, value in (state | duplicates).items()}
    assert_same(import_model(config, prefixed), plain)
    alone = {name: value for name, value in state.items() if not name.startswith("modulator.")}
    assert_same(import_model(config, alone | duplicates), plain)


def test_parameters_may_stand_beside_the_type(relaxed):
    config, state = relaxed
    flat = {
        name: {"type": section["type"], **section.get("params", {})} if isinstance(section, dict) else section
        for name, section in config.items()
    }
    assert_same(import_model(flat, state), import_model(config, state))


def test_a_number_of_units_that_the_state_overrules_is_harmless(minimal):
    config, state = minimal
    config["readout"]["params"]["n_units"] = 100
    assert import_model(config, state)[0].n_units == (5,)


@pytest.mark.parametrize("nothing", [None, {}, {"type": None}, {"type": "none", "params": None}])
def test_no_modulator_is_written_in_several_ways(minimal, nothing):
    config, state = minimal
    assert_same(import_model(config | {"modulator": nothing}, state), import_model(config, state))


def test_a_modulator_that_the_config_does_not_use_is_left_out(relaxed):
    config, state = relaxed
    config["recurrent"]["params"]["use_behavior"] = False
    module, params = import_model(config, state)
    assert not module.uses_gaze
    assert set(params) == {"filters", "alphas", "readout"}


def test_constants_that_were_not_learned_come_from_the_config(minimal):
    config, state = minimal
    config["recurrent"]["params"]["learnable_alphas"] = False
    config["readout"]["params"]["bias"] = False
    left = {name: value for name, value in state.items() if "logit" not in name and name != "readouts.0.bias"}
    module, params = import_model(config, left)
    np.testing.assert_allclose(module.time_constants(params)["alpha_slow"], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(params["readout"]["bias"], np.zeros((1, 5)))


def test_readouts_of_several_sessions_are_stacked_and_padded(minimal):
    config, state = minimal
    second = {
        name.replace("readouts.0.", "readouts.1.", 1): value[:3]
        for name, value in state.items()
        if name.startswith("readouts.0.")
    }
    _, single = import_model(config, state)
    module, params = import_model(config, state | second)
    assert module.n_units == (5, 3)
    for name, leaf in params["readout"].items():
        np.testing.assert_array_equal(leaf[0], single["readout"][name][0])
        np.testing.assert_array_equal(leaf[1, :3], single["readout"][name][0, :3])
        np.testing.assert_array_equal(leaf[1, 3:], 0)


@pytest.mark.parametrize("size", [(18, 33), (51, 51), (64, 27)])
def test_the_imported_model_takes_frames_of_any_size(relaxed, size):
    module, params = import_model(*relaxed)
    stimulus, gaze = jax.ShapeDtypeStruct((2, 3, *size, 1), jnp.float32), jnp.zeros((2, 3, 2))
    log_rate, _ = jax.eval_shape(module.apply, {"params": params}, stimulus, gaze)
    assert log_rate.shape == (2, 5)


def test_the_imported_parameters_are_those_that_the_module_creates(relaxed):
    module, params = import_model(*relaxed)
    made = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 32, 32, 1)), jnp.zeros((1, 1, 2)))[
        "params"
    ]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), made
    )


class Tensor:
    """Stands for a tensor of another library."""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("modulator.gaze_encoder.proj1.weight", None, r"no entry 'modulator.gaze_encoder.proj1.weight'"),
        ("recurrent.dynamics.lambda_fix", None, r"no entry 'recurrent.dynamics.lambda_fix'; did you mean"),
        ("readouts.0.readouts.3.mu", None, r"no entry 'readouts.0.readouts.3.mu'"),
        ("readouts.0.bias", None, r"no entry 'readouts.0.bias'"),
        ("recurrent.gru.weight", np.zeros(3), r"no place for: recurrent.gru.weight"),
        ("readouts.1.extra", np.zeros(3), r"no entry 'readouts.1.readouts.0.mu'"),
        ("convnet.qfb.mix_even.bias", np.zeros(3), r"'convnet.qfb.mix_even.bias' has shape \[3\].* \[4\]"),
        (
            "recurrent.dynamics.a_bar",
            np.zeros((4, 5)),
            r"a_bar' has shape \[4, 5\], the config asks for \[4, 4\]",
        ),
        ("recurrent.dynamics.lambda_sac", np.float32(-1), r"lambda_sac' is -1.0 1/s; .*must be positive"),
        ("recurrent.dynamics.kxy", np.ones((4, 4, 2), np.float32), r"kxy' is not .*base_freq_cpx = 0.15"),
        (
            "readouts.0.bias",
            Tensor(),
            r"'readouts.0.bias' is a .*Tensor; NumPy arrays are needed: .*\.numpy\(\)",
        ),
    ],
)
def test_an_entry_of_the_state_that_does_not_fit_is_named(relaxed, name, value, message):
    config, state = relaxed
    state.pop(name, None)
    if value is not None:
        state[name] = value
    with pytest.raises(ConfigError, match=message):
        import_model(config, state)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("convnet", "n_pairs", 8, r"has shape \[4, 1, 1, 1\], the config asks for \[8, 1, 1, 1\]"),
        ("convnet", "kernel_size", 7, r"dw_even.weight' has shape \[1, 1, 15, 15\]"),
        ("convnet", "n_pyramid_levels", 5, r"kxy' has shape \[4, 4, 2\]|has shape \[16, 16\]"),
        ("convnet", "n_pair", 8, r"'convnet'.*'n_pair'; did you mean 'n_pairs'"),
        ("modulator", "use_pos_fourier", False, r"'use_pos_fourier'\] is False; only True"),
        ("modulator", "Kpos", 3, r"'Kpos'\] is 3; only 2"),
        ("modulator", "dt", 0.1, r"modulator has dt = 0.1 s and its recurrent has 0.008333 s"),
    ],
)
def test_a_value_of_the_config_that_does_not_fit_is_named(relaxed, section, field, value, message):
    config, state = relaxed
    config[section]["params"][field] = value
    with pytest.raises(ConfigError, match=message):
        import_model(config, state)


def test_a_section_that_is_missing_or_of_another_kind_is_named(relaxed):
    config, state = relaxed
    with pytest.raises(ConfigError, match=r"no section 'readout'; it has convnet"):
        import_model({name: value for name, value in config.items() if name != "readout"}, state)
    other = copy.deepcopy(config)
    other["recurrent"]["type"] = "gru"
    with pytest.raises(ConfigError, match=r"config\['recurrent'\]\['type'\] is 'gru'; allowed are polar"):
        import_model(other, state)
    with pytest.raises(ConfigError, match=r"no place for: modulator.beh_encoder.fc1.bias"):
        import_model(config | {"modulator": {"type": "none"}}, state)
