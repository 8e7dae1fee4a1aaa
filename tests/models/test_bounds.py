"""Bounds of a model's quantities: what is read, and how the widths of a readout are held."""

import dataclasses

import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models import bounds
from polarjax.models.linear_nonlinear import LinearNonlinear

CONSTANT = {"lambda_fix": (2.0, 20.0), "alpha_slow": None}


@pytest.fixture
def model(make_model):
    return make_model(n_units=(3, 2))


def widths_after(model, limits, progress):
    module, variables = model
    held = bounds.project(
        module, variables["params"], bounds.read_bounds(module, {"width_deg": limits}), progress
    )
    before, after = variables["params"]["readout"], held["readout"]
    assert all(after[name] is before[name] for name in before if name != "log_width")
    assert all(held[name] is variables["params"][name] for name in held if name != "readout")
    return np.exp(np.asarray(before["log_width"])), np.exp(np.asarray(after["log_width"]))


@pytest.mark.parametrize("progress", [0.0, 0.7])
def test_widths_are_moved_to_the_nearest_allowed_one(model, progress):
    before, after = widths_after(model, (0.9, 1.1), progress)
    assert before.min() < 0.9 and before.max() > 1.1
    np.testing.assert_allclose(after, np.clip(before, 0.9, 1.1), rtol=1e-5)


@pytest.mark.parametrize(
    ("progress", "high"), [(0.0, 1.2), (0.125, 1.1), (0.25, 1.0), (0.5, 0.8), (0.75, 0.8), (1.0, 0.8)]
)
def test_the_upper_bound_falls_in_a_line_and_stays(model, progress, high):
    before, after = widths_after(model, (0.5, 1.2, 0.8, 0.5), progress)
    np.testing.assert_allclose(after, np.clip(before, 0.5, high), rtol=1e-5)


def test_what_is_none_is_not_held_and_constants_are_beside_the_widths(model):
    module, variables = model
    free = bounds.read_bounds(module, {"lambda_fix": None, "width_deg": None})
    assert bounds.project(module, variables["params"], free, 0.5) is variables["params"]
    read = bounds.read_bounds(module, {**CONSTANT, "width_deg": [0.1, 1]})
    assert read.constants == {"lambda_fix": (2.0, 20.0)}
    assert read.widths == (0.1, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "limits", [1.0, (0.1,), (0.1, 1.0, 0.5), (0.0, 1.0), (1.0, 0.5), (0.6, 1.0, 0.5, 0.5), (0.1, 1.0, 0.5, 0.0)]
)  # fmt: skip
def test_widths_that_cannot_be_held_are_refused(model, limits):
    with pytest.raises(ConfigError, match=r"bounds\.width_deg is .*; allowed are None, \(low, high\)"):
        bounds.read_bounds(model[0], {"width_deg": limits})


def test_a_model_without_widths_in_degrees_refuses_their_bounds(model):
    floor = LinearNonlinear(n_units=(2,), frame_shape=(9, 6, 1))
    for module in (floor, dataclasses.replace(model[0], readout="per_level")):
        with pytest.raises(ConfigError, match="no readout with widths in degrees; set it to None"):
            bounds.read_bounds(module, {"width_deg": (0.1, 1.0)})


@pytest.mark.parametrize(
    ("name", "near"), [("lambda_fixation", "lambda_fix"), ("width", "width_deg"), ("widths_deg", "width_deg")]
)
def test_a_quantity_that_does_not_exist_is_named(model, name, near):
    with pytest.raises(ConfigError, match=rf"bounds\.{name} is unknown; did you mean '{near}'"):
        bounds.read_bounds(model[0], {name: None})
