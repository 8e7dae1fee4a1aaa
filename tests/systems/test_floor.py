"""The floor of a run: a config of its own, derived from that of the run."""

import pytest

from configs import polar, polar_jepa_pretrain
from polarjax import systems
from polarjax.core import ConfigError
from polarjax.engine.config import validate


def test_a_floor_of_a_run_without_a_likelihood_is_refused_before_anything_is_trained():
    config = polar_jepa_pretrain.get_config("quick")
    assert systems.floor(config.copy_and_resolve_references().lock()) is None
    config.train.floor_steps = 10
    with pytest.raises(
        ConfigError, match="config.train.floor_steps is 10, but config.loss.weights has no likelihood"
    ):
        systems.floor(config.lock())


@pytest.mark.parametrize("variant", ["", "quick"])
def test_the_floor_of_polar_is_a_valid_config_of_a_linear_nonlinear_model_on_the_same_data(variant):
    config = polar.get_config(variant)
    config.init_from = "runs/trained"
    floor = systems.floor(config)
    train, optim = validate(floor)
    assert floor.init_from == ""
    assert floor.data.to_dict() == config.data.to_dict()
    assert floor.model.name == "linear_nonlinear"
    assert floor.model.kwargs.to_dict() == {"n_lags": config.data.burn_in + 1, "rank": 2}
    assert list(optim.groups) == ["readout"]
    assert train.num_steps == config.train.floor_steps
    assert train.best_metric == config.train.best_metric
    assert train.keep_best == 1
    assert optim.warmup_steps < train.num_steps / 10
    assert train.eval_every == train.save_every < train.num_steps


def test_deriving_a_floor_leaves_the_config_as_it_is():
    config = polar.get_config("quick").lock()
    before = config.to_json()
    systems.floor(config)
    assert config.to_json() == before


def test_without_floor_steps_or_for_a_floor_there_is_none():
    config = polar.get_config("quick")
    assert systems.floor(systems.floor(config)) is None
    config.train.floor_steps = 0
    assert systems.floor(config) is None


def test_every_system_that_has_a_floor_can_be_built():
    assert set(systems.FLOORS) <= set(systems.BUILD)
