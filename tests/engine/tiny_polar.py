"""Polar-V1 of two sessions on a movie of noise, made as small as a test needs."""

import ml_collections
import numpy as np

from polarjax import systems
from polarjax.core import Batch, Data, DataInfo, SessionInfo
from polarjax.models import constants, jepa_objective
from tests.engine import toy

FRAMES, LENGTH, PREDICTED, SIDE = 64, 5, 3, 13
KWARGS = {"n_levels": 1, "n_pairs": 2, "kernel_size": 5, "code_width": 4, "dtype": "float32"}
UNITS = (3, 2)
JEPA = {
    "width": 6,
    "deltas": (2,),
    "predictor_size": 3,
    "hides_masked": True,
    "normalizes_prediction": True,
    "sees_gaze": True,
    "mask_ratio": 0.5,
    "target": "ema",
    "target_decay": 0.9,
}


def make_config(dtype="float32", **overrides):
    """Returns the config of a short run of 8 rows in 4 micro-batches."""
    group = {"learning_rate": 0.01, "weight_decay": 1e-3}
    intervals = {"num_steps": 4, "log_every": 2, "eval_every": 4, "save_every": 4}
    config = toy.make_config(**{f"train.{name}": value for name, value in intervals.items()}, **overrides)
    with config.unlocked(), config.ignore_type():
        config.system = "polar"
        config.model = ml_collections.ConfigDict(
            {"name": "polar_v1", "kwargs": {**KWARGS, "dtype": dtype, "start": "drive"}}
        )
        config.optim.groups = ml_collections.ConfigDict(
            {name: dict(group) for name in ("core", "readout", *constants.PLACES)}
        )
    return config


def add_objective(config, weights, **options):
    """Adds self-supervision to a config of `make_config`; `weights` are those of all terms that are not 0."""
    with config.unlocked(), config.ignore_type():
        config.data.update(burn_in=LENGTH - PREDICTED, predicted=PREDICTED)
        config.model.jepa = ml_collections.ConfigDict(JEPA | options)
        names = (*config.loss.weights, *jepa_objective.TERMS)
        config.loss.weights = ml_collections.ConfigDict(dict.fromkeys(names, 0.0) | weights)
        config.loss.schedules.update(dict.fromkeys(jepa_objective.TERMS))
        config.optim.groups.jepa = config.optim.groups.core.copy_and_resolve_references()
    return config


def make_data(batch_size=8):
    """Returns segments with more valid counts in some rows than in others, so that no two micro-batches weigh alike."""
    random = np.random.default_rng(0)
    resident = {
        "stimulus": random.uniform(-0.5, 0.5, (FRAMES, SIDE, SIDE, 1)).astype(np.float32),
        "gaze": random.normal(0, 0.02, (FRAMES, 2)).cumsum(0).astype(np.float32),
        "spikes": random.poisson(0.5, (FRAMES, max(UNITS))).astype(np.float32),
        "valid": (random.random((FRAMES, max(UNITS))) < 0.6).astype(np.float32),
    }
    sessions = tuple(
        SessionInfo(name, "m", tuple(map(str, range(n))), (0.5,) * n, ((0.1, -0.1),) * n, "f", "")
        for name, n in zip("ab", UNITS, strict=True)
    )

    def request(starts):
        return {"start": np.asarray(starts, np.int32)}

    def train(step):
        return request(np.random.default_rng((7, step)).integers(0, FRAMES - LENGTH, batch_size))

    def evaluation(tier, batch_size):
        yield request(np.arange(tier, tier + batch_size))

    def fetch(resident, request):
        frames = request["start"][:, None] + np.arange(LENGTH)[None]
        bins = frames[:, -PREDICTED:]
        present = np.arange(max(UNITS))[None] < np.asarray(UNITS)[:, None]
        present = np.tile(present[:, None], (frames.shape[0] // len(UNITS), 1, 1))
        spikes, valid = resident["spikes"][bins] * present, resident["valid"][bins] * present
        return Batch(resident["stimulus"][frames], resident["gaze"][frames], spikes, valid)

    info = DataInfo(sessions, 120.0, 10.0, (SIDE, SIDE, 1))
    return Data(info, resident, train, evaluation, fetch, (), lambda: None)


def make_system(config):
    """Returns the system of a config of `make_config`."""
    return systems.build(config, make_data().info)
