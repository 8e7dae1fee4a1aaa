"""A tiny Polar-V1 and movies for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.models.polar_v1 import PolarV1
from tests.ops.conftest import precision as precision

TINY = {
    "n_units": (3,),
    "frame_shape": (13, 13, 1),
    "dt": 1 / 120,
    "pixels_per_degree": 10.0,
    "n_levels": 1,
    "n_pairs": 2,
    "kernel_size": 5,
    "code_width": 4,
}


@pytest.fixture(scope="session")
def make_model():
    """make_model(**options) -> (module, variables): tiny, with parameters and statistics that are not neutral."""

    def make(**options):
        module = PolarV1(**TINY | options)
        size, n_sessions = module.frame_shape, len(module.n_units)
        shapes = jax.eval_shape(
            module.init, jax.random.key(0), jnp.zeros((n_sessions, 1, *size)), jnp.zeros((n_sessions, 1, 2))
        )
        random = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype), shapes
        )
        if "statistics" in variables:
            scale = jax.tree.map(lambda leaf: 0.5 + leaf**2, variables["statistics"]["scale"])
            variables["statistics"] = {**variables["statistics"], "scale": scale}
        return module, variables

    return make


@pytest.fixture(scope="session")
def make_movie():
    """make_movie(batch, frames, size) -> stimulus and gaze with a saccade of a degree in it."""

    def make(batch=2, n_frames=6, size=(13, 13, 1)):
        random = np.random.default_rng(1)
        stimulus = random.uniform(-0.5, 0.5, (batch, n_frames, *size))
        gaze = random.normal(0, 0.01, (batch, n_frames, 2)).cumsum(1)
        gaze[:, n_frames // 2 :] += 1.0
        return jnp.asarray(stimulus, jnp.float32), jnp.asarray(gaze, jnp.float32)

    return make
