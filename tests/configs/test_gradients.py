"""Every parameter of every config gets a gradient, and belongs to one group of the optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax import systems
from polarjax.core import Batch
from polarjax.engine import config
from polarjax.engine.optim import label_parameters
from tests.configs.test_configs import CONFIGS, INFO, SMALL_MODELS, SMALL_POLAR

BURN_IN, PREDICTED = 4, 4
quickly = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
)


class State:
    """What a loss reads of the training state."""

    step = 0

    def __init__(self, variables):
        self.target_params = variables.get("target")
        self.model_state = {
            name: leaf for name, leaf in variables.items() if name not in ("params", "target")
        }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_parameter_gets_a_gradient_and_is_in_one_group(path):
    small = SMALL_MODELS.get(path.stem, SMALL_POLAR)
    flag = f"{path}:quick" if path.stem != "macaque_v1" else str(path)
    there = config.load(flag, {})
    values = {f"model.kwargs.{name}": text for name, text in small.items() if name in there.model.kwargs}
    if there.data.burn_in:
        values |= {"data.burn_in": str(BURN_IN), "data.predicted": str(PREDICTED)}
    settings = config.load(flag, values)
    system = systems.build(settings, INFO)
    random = np.random.default_rng(0)
    predicted = 1 if settings.data.burn_in == 0 else PREDICTED
    frames, bins = (1 if predicted == 1 else BURN_IN + PREDICTED), (2, predicted, INFO.max_units)
    arrays = [
        random.uniform(-0.5, 0.5, (2, frames, 51, 51, 1)),
        random.normal(0, 1, (2, frames, 2)).cumsum(1),
    ]
    arrays += [random.poisson(1.0, bins), np.ones(bins)]
    slow = Batch(*(jnp.asarray(array, jnp.float32) for array in arrays))
    variables = quickly(system.init)(jax.random.key(0), slow)
    # Heads that start at 0 hand no gradient back: all parameters are moved.
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(random.normal(0, 0.1, leaf.shape), leaf.dtype), variables["params"]
    )
    key, state = jax.random.key(1), State(variables)
    slope = quickly(jax.grad(lambda params, batch: system.loss(params, state, batch, key).loss))
    # Raw gaze features saturate heads in fast movements, and saccade gates in slow ones.
    gradients = [slope(params, slow._replace(gaze=scale * slow.gaze)) for scale in (0.01, 0.3)]
    largest = jax.tree.map(lambda *leaves: max(float(jnp.abs(leaf).max()) for leaf in leaves), *gradients)
    labels = label_parameters(system.param_group, params)
    assert set(jax.tree.leaves(labels)) <= set(settings.optim.groups)
    # Readouts that are not trained, without a likelihood, need no gradient.
    silent = {"readout"} if settings.optim.groups.readout is None else set()
    places = zip(jax.tree.leaves_with_path(largest), jax.tree.leaves(labels), strict=True)
    assert not [jax.tree_util.keystr(at) for (at, size), group in places if size == 0 and group not in silent]
