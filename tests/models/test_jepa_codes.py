"""The code that probes read: what the projectors make of the last frame, and the summaries on a coarse grid."""

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.models.jepa_codes import frozen_codes
from polarjax.models.jepa_objective import read_objective
from polarjax.models.summary_maps import summary_maps
from polarjax.ops.coarse_grid import coarse_grid
from polarjax.systems.polar import make_module
from tests.engine import tiny_polar


def test_codes_are_mean_unit_vectors_and_summaries_are_means_over_places_of_the_last_frame():
    config, data = tiny_polar.add_objective(tiny_polar.make_config(), {"jepa": 1.0}), tiny_polar.make_data(4)
    batch = jax.tree.map(jnp.asarray, data.fetch(data.resident, data.train(0)))
    variables = dict(jax.jit(tiny_polar.make_system(config).init)(jax.random.key(0), batch))
    variables.pop("target")
    params = variables.pop("params")
    objective = read_objective(config.model.jepa, make_module(config, data.info), tiny_polar.LENGTH)
    found = jax.jit(lambda: frozen_codes(objective, params, variables, batch))()

    @jax.jit
    def last_maps():
        given = (batch.stimulus, batch.gaze, (tiny_polar.LENGTH - 1,))
        return objective.module.apply({"params": params, **variables}, *given, method=summary_maps)[0]

    ((maps,),) = last_maps()
    np.testing.assert_allclose(
        found["summaries"].reshape(4, 3, 3, -1), coarse_grid(maps, 3), rtol=1e-4, atol=1e-6
    )
    leaves = params["jepa"]["projector_0"]
    hidden, out = (
        (leaves[name]["kernel"], leaves[name]["bias"][None, None, None]) for name in ("hidden", "out")
    )
    code = jax.nn.gelu(maps @ hidden[0] + hidden[1], approximate=False) @ out[0] + out[1]
    code = code / np.linalg.norm(code, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["code"], code.mean((1, 2)), rtol=1e-3, atol=1e-5)
