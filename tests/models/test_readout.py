"""Readouts: where units look, and a second Gaussian around the first."""

import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError


def predict(module, variables, movie, **options):
    return module.clone(**options).apply(variables, *movie, None, method="advance")


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
    _, second, _ = module.apply(variables, stimulus[:, 2:], gaze[:, 2:], memory, method="advance")
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"surround": 0.5}, {"surround": 2.0, "readout": "per_level"}])
def test_a_surround_that_cannot_be_is_refused(make_model, options):
    with pytest.raises(
        ConfigError,
        match=r"kwargs.surround is .*allowed are None, and with readout 'shared' a number above 1",
    ):
        make_model(**options)
