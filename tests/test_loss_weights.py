"""Weights of the terms of a loss: names, values, and when they rise."""

import ml_collections
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.loss_weights import ramp, read_weights
from polarjax.systems import polar


def section(weights=None, schedules=None):
    loss = polar.poisson_loss()
    loss["weights"] |= weights or {}
    loss["schedules"] |= schedules or {}
    return ml_collections.ConfigDict(loss)


def read(**changes):
    return read_weights(section(**changes), polar.LIKELIHOODS, polar.regularisers.TERMS, 100)


def test_a_weight_rises_in_a_line_between_two_shares_of_the_run():
    weights = read(weights={"feature_l1": 2.0, "constants": 3}, schedules={"feature_l1": (0.2, 0.6)})
    steps = np.array([0, 20, 30, 40, 60, 99])
    found = [weights.at(step) for step in steps]
    np.testing.assert_allclose(
        [at["feature_l1"] for at in found], np.interp(steps, [20, 60], [0.0, 2.0]), rtol=1e-6
    )
    assert {at["constants"] for at in found} == {3.0}
    assert {at["poisson"] for at in found} == {1.0}
    assert weights.at(0).keys() == {"poisson", "feature_l1", "constants"}


def test_a_ramp_over_the_whole_run_is_its_progress():
    progress = np.linspace(0, 1, 5, dtype=np.float32)
    np.testing.assert_allclose(ramp(progress, 0.0, 1.0), progress)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"feature_l2": 0.0}}, r"loss\.weights must name exactly the loss terms poisson, .*'feature_l2'"),
        ({"weights": {"constants": -1.0}}, r"weights\.constants is -1\.0; allowed are numbers >= 0"),
        ({"weights": {"constants": "1"}}, r"weights\.constants is '1'"),
        ({"weights": {"constants": float("nan")}}, r"weights\.constants is nan"),
        (
            {"weights": {"zero_inflated_poisson": 1.0}},
            r"has poisson 1\.0 and zero_inflated_poisson 1\.0; exactly one of them",
        ),
        ({"weights": {"poisson": 0.0}}, r"has poisson 0\.0 and zero_inflated_poisson 0\.0; exactly one"),
        ({"schedules": {"poisson": None}}, r"schedules must name exactly the terms constants, .*'poisson'"),
        ({"schedules": {"feature_l1": (0.5, 0.5)}}, r"schedules\.feature_l1 is \(0\.5, 0\.5\); allowed are None"),
        ({"schedules": {"feature_l1": (0.0, 2.0)}}, r"start < end <= 1"),
        ({"schedules": {"feature_l1": 0.5}}, r"schedules\.feature_l1 is 0\.5"),
    ],
)  # fmt: skip
def test_what_config_loss_cannot_be_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        read(**changes)
