"""A tiny system, its parameters and its checkpoints, written without training."""

import json

import jax.numpy as jnp
import numpy as np

from polarjax.core import System
from polarjax.engine import checkpoints
from polarjax.engine import workdir as folders
from polarjax.engine.state import TrainState

TINY_STATE = {"statistics": {"offset": np.zeros((), np.float32)}}


def tiny_system(config, info):
    """Rates that follow the contrast of the window: log rate = bias + gain (mean |stimulus| - 0.2)."""
    del config, info

    def predict(params, model_state, batch):
        bins = batch.spikes.shape[1]
        contrast = jnp.mean(jnp.abs(batch.stimulus), axis=(2, 3, 4))[:, -bins:, None] - 0.2
        bias = jnp.tile(params["readout"]["bias"], (len(contrast) // 2, 1))
        return bias[:, None, :] + params["gain"] * contrast + model_state["statistics"]["offset"]

    def constants(params):
        memories = dict(zip(("fix", "sac"), map(float, params["tau"]), strict=True))
        return {f"temporal/tau_{name}_ms": tau for name, tau in memories.items()} | {
            f"temporal/lambda_{name}": 1e3 / tau for name, tau in memories.items()
        }

    unused = (None,) * 4
    return System(unused[0], unused[1], predict, *unused[:2], unused[0], constants)


def tiny_params(info):
    generator = np.random.default_rng(0)
    units = max(info.max_units, 1)  # no array of a checkpoint is empty
    bias = np.zeros((len(info.sessions), units), np.float32)
    mean = np.zeros((len(info.sessions), units, 2), np.float32)
    for index, session in enumerate(info.sessions):
        bias[index, : len(session.unit_ids)] = np.log(np.maximum(session.mean_count, 1e-3))
        mean[index, : len(session.unit_ids)] = np.reshape(session.position_deg, (-1, 2))
    return {
        "filters": {
            name: {"kernel": generator.normal(size=(9, 9, 1, 8)).astype(np.float32)}
            for name in ("even", "odd")
        },
        "readout": {
            "mean": mean,
            "log_width": np.full(mean.shape, np.log(0.1), np.float32),
            "angle": np.zeros(bias.shape, np.float32),
            "bias": bias,
        },
        "gain": np.float32(1.0) * np.ones((), np.float32),
        "tau": np.asarray([104.2, 26.4], np.float32),
    }


def save_checkpoint(
    folder, config, info, params, steps=(10, 30), model_state=TINY_STATE, rise=0.1, source=None, target=None
):
    """Writes checkpoints of the given steps, `rise` bits per spike better a step, and the metrics of a run."""
    folder.mkdir(parents=True)
    run = folders.describe_run(config, info) | {"init_from": source}
    keep = {"keep_latest": 5, "keep_best": 1, "best_metric": "eval/bits_per_spike"}
    with checkpoints.Checkpoints(folder, **keep) as saver:
        for step in steps:
            state = TrainState(
                step=np.asarray(step, np.int32),
                params=params,
                target_params=target,
                model_state=model_state,
                opt_state={},
                rng=np.zeros(2, np.uint32),
            )
            metrics = {"eval/bits_per_spike": rise * step}
            saver.save(state, {**run, "metrics": metrics, "tally": {}}, wait=True)
    lines = [
        {
            "step": step,
            "train/loss": 0.5 + 1 / step,
            "eval/bits_per_spike": 0.2 - 1 / step,
            "temporal/tau_fix_ms": 200 - 3.2 * step,
            "temporal/tau_sac_ms": 50 - 0.8 * step,
        }
        for step in range(5, 35, 5)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + '\n{"step": 35, "train/lo')
