"""The layers of Polar-V1 with the reference's parameters: codes, heads and gradients."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.models import layers
from polarjax.ops import gaze as gaze_ops

HEADS = {"gate": "head_q", "velocity": "head_veff", "gain": "head_gam", "offset": "head_rho"}
OUTPUTS = ("q", "v_eff", "gamma", "rho")
# The reference's float64 gradients belong to weights that its files keep rounded to float32: hence 1e-6 of the largest.
PRECISIONS = {np.float32: ("", 2e-5, 1e-3, 1e-5), np.float64: (".f64", 1e-9, 1e-9, 1e-6)}


@pytest.fixture(params=PRECISIONS, ids=lambda dtype: dtype.__name__)
def dtype(request):
    with jax.enable_x64(True) if request.param is np.float64 else contextlib.nullcontext():
        yield request.param


def dense(arrays, prefix, suffix=""):
    return {"kernel": arrays[f"{prefix}.weight{suffix}"].T, "bias": arrays[f"{prefix}.bias{suffix}"]}


def head_parameters(arrays, prefix, suffix=""):
    names = {"first": "fc1", "second": "fc2"} | HEADS
    return {ours: dense(arrays, f"{prefix}.{theirs}", suffix) for ours, theirs in names.items()}


@pytest.mark.parametrize("case", ["mild", "large"])
def test_behavior_heads_and_their_gradients_equal_the_reference(golden, dtype, case):
    arrays = golden("polar/behavior_encoder")
    suffix, value, gradient, floor = PRECISIONS[dtype]
    heads = layers.BehaviorHeads(n_levels=3, n_pairs=4, width=16, max_velocity=50.0, neutral=False)

    @jax.jit
    def behavior_and_gradients(params, code, weights):
        behavior, pull_back = jax.vjp(
            lambda params, code: tuple(heads.apply({"params": params}, code, code[..., 0]))[:4], params, code
        )
        return behavior, pull_back(weights)

    weights = [arrays[f"{case}.w_{name}"] for name in OUTPUTS]
    weights[0] = weights[0][..., 0]
    arguments = (head_parameters(arrays, "p"), arrays[f"{case}.bcode"], tuple(weights))
    behavior, (gradients, code_gradient) = behavior_and_gradients(
        *jax.tree.map(lambda x: jnp.asarray(x, dtype), arguments)
    )
    for name, actual in zip(OUTPUTS, behavior, strict=True):
        expected = arrays[f"{case}.{name}{suffix}"].reshape(actual.shape)
        assert actual.dtype == dtype
        # Saturating codes make terms of some hundred that cancel; the reference's own float32 is off by as much.
        rounding = (
            4 * abs(arrays[f"{case}.{name}"] - arrays[f"{case}.{name}.f64"]).max() if suffix == "" else 0
        )
        np.testing.assert_allclose(actual, expected, rtol=value, atol=value + rounding, err_msg=name)
    expected = head_parameters(arrays, f"{case}.grad", suffix) | {"code": arrays[f"{case}.dbcode{suffix}"]}
    actual = gradients | {"code": code_gradient}
    for path, exact in jax.tree.leaves_with_path(expected):
        found = actual
        for key in path:
            found = found[key.key]
        np.testing.assert_allclose(
            found, exact, rtol=gradient, atol=floor * abs(exact).max(), err_msg=jax.tree_util.keystr(path)
        )


def test_the_gaze_code_equals_the_reference(golden, dtype):
    arrays = golden("polar/gaze_encoder")
    suffix, tolerance, *_ = PRECISIONS[dtype]
    encoder = layers.GazeEncoder(width=24, scaled=False, dt=float(arrays["deg120.dt"]))
    params = {
        "log_threshold": arrays["deg120.p.sac_log_thr"],
        "sharpness": arrays["deg120.p.sac_invT"],
        "hidden": dense(arrays, "deg120.p.proj1"),
        "code": dense(arrays, "deg120.p.proj2"),
    }
    for axis in "xy":
        params[f"log_frequency_{axis}"] = arrays[f"deg120.p.pos_logw_{axis}"]
        params[f"phase_{axis}"] = arrays[f"deg120.p.pos_phi_{axis}"]
    params, gaze = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, arrays["deg120.gaze"]))
    code, _ = jax.jit(encoder.apply)({"params": params}, gaze, gaze_ops.initial_memory(gaze))
    assert code.dtype == dtype
    np.testing.assert_allclose(code, arrays[f"deg120.bcode{suffix}"], rtol=tolerance, atol=tolerance)


def test_the_separable_bank_equals_the_reference(golden, dtype):
    arrays = golden("polar/quadrature_filter_bank")
    bank = layers.QuadratureBank(
        "separable", n_pairs=3, n_channels=2, kernel_size=7, frequency=0.15, dtype="float32"
    )
    params = {
        name: {
            "spatial": {"kernel": arrays[f"in2.k7.p.dw_{name}.weight"].transpose(2, 3, 1, 0)},
            "mixing": {
                "kernel": arrays[f"in2.k7.p.mix_{name}.weight"][:, :, 0, 0].T,
                "bias": arrays[f"in2.k7.p.mix_{name}.bias"],
            },
        }
        for name in ("even", "odd")
    }
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    images = jnp.asarray(np.moveaxis(arrays["in2.k7.x1"], 1, -1).reshape(-1, 17, 17, 2), dtype)
    responses = jax.jit(bank.apply)({"params": params}, images)
    for name, actual in zip(("even1", "odd1"), responses, strict=True):
        expected = np.moveaxis(arrays[f"in2.k7.{name}"], 1, -1).reshape(actual.shape)
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
