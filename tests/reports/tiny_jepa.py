"""A self-supervised Polar-V1 on the toy movie, as a report opens it: two sessions with a tier of every frame."""

import pathlib
import types

import jax
import numpy as np

from polarjax.reports.runs import Run
from tests.engine import tiny_polar

ROWS = 4
TRAINING, TESTED = np.arange(0, 40), np.arange(48, 58)


def make_config(**options):
    """Returns the config of a run of self-supervision alone."""
    config = tiny_polar.add_objective(tiny_polar.make_config(), {"jepa": 1.0}, **options)
    with config.unlocked():
        config.data.update(batch_size=ROWS, predicted=tiny_polar.PREDICTED)
        config.optim.micro_batches = 1
    return config


def make_data():
    """Returns data whose requests say what is counted; the last of the test tier comes again and is not.

    Training segments end before frame 45, tested ones begin at 48.
    """
    data = tiny_polar.make_data(ROWS)
    tier = np.zeros(tiny_polar.FRAMES, np.int8)
    tier[45:] = 2
    sessions = tuple(types.SimpleNamespace(tier=tier, spikes=np.zeros((tiny_polar.FRAMES, 0))) for _ in "ab")

    def request(starts, counted=ROWS):
        rows = np.arange(len(starts)) < counted
        fields = {"start": np.asarray(starts, np.int32), "stop": np.asarray(starts, np.int32) + 5}
        return fields | {"counted": np.repeat(rows[:, None], tiny_polar.PREDICTED, 1).astype(np.float32)}

    def train(step):
        return request(np.random.default_rng((7, step)).choice(TRAINING, ROWS))

    def evaluation(tier, rows):
        if tier == 2:
            yield from (request(TESTED[first : first + rows]) for first in range(0, 8, rows))
            yield request(TESTED[:rows], 0)

    return data._replace(sessions=sessions, train=train, evaluation=evaluation)


def make_run(config, data):
    """Returns a run and its system; its parameters are those of another seed than the config's."""
    system = tiny_polar.make_system(config)
    batch = jax.tree.map(jax.numpy.asarray, data.fetch(data.resident, data.train(0)))
    variables = jax.tree.map(np.asarray, dict(jax.jit(system.init)(jax.random.key(7), batch)))
    params, target = variables.pop("params"), variables.pop("target", None)
    run = Run(pathlib.Path("tiny"), 4, "latest", config, data.info, params, variables, target)
    return run, system
