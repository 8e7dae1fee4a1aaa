"""Readouts: where units look, and a second Gaussian around the first."""

import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.readout import GaussianReadout, mix
from tests.models.jitted import apply


def predict(module, variables, movie, **options):
    return apply(module.clone(**options), variables, *movie, None, method="advance")


def test_a_surround_that_weighs_nothing_changes_nothing(make_model, make_movie):
    module, variables = make_model(surround=3.0)
    weights = variables["params"]["readout"]["kernel"]
    depth = weights.shape[-1] // 2
    alone = {
        "params": {
            **variables["params"],
            "readout": {**variables["params"]["readout"], "kernel": weights[..., :depth]},
        },
        "statistics": {name: leaf[:, :depth] for name, leaf in variables["statistics"].items()},
    }
    silent = {
        **variables,
        "params": {
            **variables["params"],
            "readout": {**variables["params"]["readout"], "kernel": weights.at[..., depth:].set(0.0)},
        },
    }
    _, with_surround, _ = predict(module, silent, make_movie())
    _, expected, _ = predict(module, alone, make_movie(), surround=None)
    np.testing.assert_allclose(with_surround, expected, rtol=1e-5, atol=1e-6)


def test_the_surround_pools_with_the_same_gaussian_made_wider(make_model, make_movie):
    module, variables = make_model(surround=3.0, n_units=(3, 2))
    readout = variables["params"]["readout"]
    _, _, both = predict(module, variables, make_movie(batch=4))
    depth = both["pooled"].shape[-1] // 2
    for part, ratio in enumerate((1.0, 3.0)):
        wider = {
            **readout,
            "log_width": readout["log_width"] + np.log(ratio),
            "kernel": readout["kernel"][..., :depth],
        }
        alone = {
            "params": {**variables["params"], "readout": wider},
            "statistics": {name: leaf[:, :depth] for name, leaf in variables["statistics"].items()},
        }
        _, _, single = predict(module, alone, make_movie(batch=4), surround=None)
        found = both["pooled"][..., part * depth : (part + 1) * depth]
        np.testing.assert_allclose(found, single["pooled"], rtol=1e-5, atol=1e-6)


def test_a_movie_in_two_pieces_is_the_movie_in_one_with_a_surround_too(make_model, make_movie):
    module, variables = make_model(surround=2.0)
    stimulus, gaze = make_movie()
    _, whole, _ = predict(module, variables, (stimulus, gaze))
    memory, first, _ = predict(module, variables, (stimulus[:, :2], gaze[:, :2]))
    _, second, _ = apply(module, variables, stimulus[:, 2:], gaze[:, 2:], memory, method="advance")
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"surround": 0.5}, {"surround": 2.0, "readout": "per_level"}])
def test_a_surround_that_cannot_be_is_refused(make_model, options):
    with pytest.raises(
        ConfigError,
        match=r"kwargs.surround is .*allowed are None, and with readout 'shared' a number above 1",
    ):
        make_model(**options)


def test_a_kernel_of_standardized_features_weighs_features_less_their_mean_and_over_their_scale():
    random = np.random.default_rng(0)
    units = GaussianReadout("shared", 3, (1, 2), 5.0, (((0.0, 0.0),) * 4,) * 2, 0.5, ((0.0,) * 4,) * 2, 2.0)
    kernel = jnp.asarray(random.standard_normal((2, 4, 2, 6)))
    bias = jnp.asarray(random.standard_normal((2, 4)))
    nothing = {"mean": np.zeros((2, 4, 2)), "log_width": np.zeros((2, 4, 2)), "angle": np.zeros((2, 4))}
    variables = {"params": {**nothing, "kernel": kernel, "bias": bias}}
    mean = jnp.asarray(random.standard_normal((2, 6)))
    scale = jnp.asarray(random.uniform(0.5, 2, (2, 6)))
    pooled = jnp.asarray(random.standard_normal((5, 4, 4, 2, 6)))
    weights = units.apply(variables, mean, scale, method="weights")
    standard = (pooled - mean[None, None, None]) / scale[None, None, None]
    expected = mix(standard, *units.apply(variables, method="weights"))
    np.testing.assert_allclose(mix(pooled, *weights), expected, rtol=1e-4, atol=1e-5)

    by_window = units.apply(variables, weights[0], method="by_window")
    windows = jnp.concatenate([pooled[..., :3], pooled[..., 3:]], axis=2)
    grouped = windows.reshape(5, 2, 2, *windows.shape[2:])
    weighed = jnp.einsum("kbswld,swld->kbsw", grouped, by_window).reshape(5, 4, -1)
    added = units.apply(variables, weighed, weights[1], method="add_windows")
    np.testing.assert_allclose(added, expected, rtol=1e-4, atol=1e-5)
