"""The residual baseline as a system: groups of parameters, sessions cut out, dropout in the loss alone."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from polarjax import systems
from polarjax.core import Batch, DataInfo, SessionInfo
from polarjax.engine.optim import label_parameters
from polarjax.models import inference
from polarjax.systems import polar

KWARGS = {
    "channels": (2, 3),
    "kernel_sizes": (3, 3),
    "reductions": (1, 2),
    "hidden": 2,
    "code_width": 3,
    "dropout": 0.5,
}
INFO = DataInfo(
    tuple(
        SessionInfo(name, "m", tuple(map(str, range(n))), (0.3,) * n, ((0.1, 0.0),) * n, "", "")
        for name, n in (("a", 3), ("b", 2))
    ),
    240.0,
    10.0,
    (13, 13, 1),
)


def config_of(**kwargs):
    model = {"name": "resnet_convgru", "kwargs": KWARGS | kwargs}
    fields = {"system": "polar", "model": model, "loss": polar.poisson_loss()}
    fields |= {"optim": {"bounds": {}}, "train": {"num_steps": 10}}
    return ml_collections.ConfigDict(fields)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    stimulus, gaze = random.uniform(-0.5, 0.5, (4, 5, 13, 13, 1)), random.normal(0, 0.1, (4, 5, 2))
    spikes, valid = random.poisson(0.5, (4, 3, 3)), np.ones((4, 3, 3))
    return Batch(*(jnp.asarray(x, jnp.float32) for x in (stimulus, gaze, spikes, valid)))


class State:
    """What a loss reads of the training state."""

    model_state, step, target_params = {}, 0, None

    def __init__(self, params):
        self.params = params


@pytest.fixture(scope="module")
def built(batch):
    system = systems.build(config_of(), INFO)
    return system, jax.jit(system.init)(jax.random.key(0), batch)


def test_the_readout_is_a_group_and_all_else_is_the_core(built):
    system, variables = built
    labels = label_parameters(system.param_group, variables["params"])
    groups = {name: set(jax.tree.leaves(branch)) for name, branch in labels.items()}
    assert groups.pop("readout") == {"readout"}
    assert groups == dict.fromkeys(("stage_0", "stage_1", "gru", "gaze_encoder"), {"core"})
    assert set(variables) == {"params"}
    assert system.constants(variables["params"]) == {}


def test_rates_start_near_the_mean_counts_of_the_units(built, batch):
    system, variables = built
    log_rate = jax.jit(system.predict)(variables["params"], {}, batch)
    assert log_rate.shape == (4, 3, 3)
    assert np.abs(log_rate[:, :, :2] - np.log(0.3)).max() < 0.7


def test_dropout_acts_in_the_loss_and_not_in_the_prediction(built, batch):
    system, variables = built
    loss = jax.jit(lambda key: system.loss(variables["params"], State(variables["params"]), batch, key).loss)
    first, second = (loss(jax.random.key(seed)) for seed in (0, 1))
    assert first != second
    assert loss(jax.random.key(0)) == first
    still = systems.build(config_of(dropout=0.0), INFO)
    given = (variables["params"], {}, batch)
    np.testing.assert_array_equal(jax.jit(system.predict)(*given), jax.jit(still.predict)(*given))


def test_one_session_out_of_several_streams_as_it_predicts(built, batch):
    _, variables = built
    alone = inference.select_session(variables, INFO, 1, "resnet_convgru")
    assert alone["params"]["readout"]["kernel"].shape[:2] == (1, 2)
    _, initial, advance = inference.make_predictors(config_of(), INFO, 1)
    memory = initial(alone, 2)
    memory, log_rate = advance(alone, memory, batch.stimulus[1::2], batch.gaze[1::2])
    predicted = jax.jit(systems.build(config_of(), INFO).predict)(variables["params"], {}, batch)
    np.testing.assert_allclose(log_rate[:, -3:], predicted[1::2, :, :2], rtol=1e-4, atol=1e-5)
