"""Polar-V1 that starts from a trained one: a session is added to a core that is frozen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import systems
from polarjax.core import SessionInfo
from polarjax.engine import checkpoints, interruption, loop
from polarjax.models import constants
from polarjax.systems import polar
from tests.engine import tiny_polar
from tests.engine.runs import assert_same_bits

FROZEN = {f"optim.groups.{name}": None for name in ("core", *constants.PLACES)}
QUICK = {"train.num_steps": 2, "optim.warmup_steps": 0}


def make_data(**units):
    """Returns the segments of `tiny_polar` with sessions of these names and numbers of units."""
    data = tiny_polar.make_data()
    sessions = tuple(
        SessionInfo(name, "m", tuple(map(str, range(n))), (0.5,) * n, ((0.1, -0.1),) * n, "f", "")
        for name, n in units.items()
    )
    return data._replace(info=dataclasses.replace(data.info, sessions=sessions))


def train(folder, data, stop=None, **options):
    config = tiny_polar.make_config()
    with config.unlocked(), config.ignore_type():
        for path, value in (QUICK | options).items():
            *branches, leaf = path.split(".")
            node = config
            for branch in branches:
                node = node[branch]
            node[leaf] = value
    return loop.train(config, systems.build(config, data.info), data, folder, stop=stop)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of the sessions a and b, and its state."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, make_data(a=3, b=2))
    return folder, checkpoints.restore(folder)[0]


def test_a_session_is_added_to_a_frozen_core_whose_bits_stay(source, tmp_path):
    folder, trained = source
    state = train(
        tmp_path, make_data(a=3, new=2), init_from=str(folder), **FROZEN, **{"train.keep_latest": 9}
    )
    first, _ = checkpoints.restore(tmp_path, 0)
    core = {name: leaf for name, leaf in trained.params.items() if name != "readout"}
    assert_same_bits({name: state.params[name] for name in core}, core)
    assert set(state.params) == {*core, "readout"}
    assert_same_bits(first.model_state, trained.model_state)
    for name, leaf in first.params["readout"].items():
        np.testing.assert_array_equal(leaf[0], trained.params["readout"][name][0])
    np.testing.assert_array_equal(first.params["readout"]["mean"][1, :2], np.float32([[0.1, -0.1]] * 2))
    assert np.all(
        np.asarray(state.params["readout"]["bias"])[:, :2] != first.params["readout"]["bias"][:, :2]
    )


def test_features_of_new_sessions_alone_are_standardized_under_the_copied_core(source, tmp_path):
    folder, trained = source
    data = make_data(c=3, d=2)
    with pytest.raises(interruption.Interrupted):
        train(tmp_path, data, lambda step: True, init_from=str(folder), **{"seed": 9, "train.keep_latest": 9})
    first, _ = checkpoints.restore(tmp_path, 0)
    batch = data.fetch(data.resident, data.train(0))
    module = polar.make_module(tiny_polar.make_config(), data.info)
    variables = {"params": first.params, **first.model_state}
    given = (variables, jnp.asarray(batch.stimulus), jnp.asarray(batch.gaze))
    predict = functools.partial(module.apply, n_predicted=tiny_polar.PREDICTED, method="predict")
    _, intermediates = jax.jit(predict)(*given)
    expected = polar.feature_statistics(intermediates["pooled"])
    found, before = first.model_state["statistics"], trained.model_state["statistics"]
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)
    assert np.abs(found["scale"] / before["scale"] - 1).max() > 1e-2
