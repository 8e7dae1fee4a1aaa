"""A linear model and noise for data: the smallest system and data that the engine can train."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from polarjax.core import Batch, Data, DataInfo, LossOutput, SessionInfo, System
from polarjax.systems import polar

FRAMES, CHANNELS, UNITS = 96, 6, 3


def make_config(**overrides):
    """Returns a config of all sections; overrides are written 'train.num_steps': 5."""
    group = {"learning_rate": 0.05, "weight_decay": 1e-3}
    config = ml_collections.ConfigDict(
        {
            "system": "toy",
            "seed": 3,
            "init_from": "",
            "data": {"batch_size": 8, "seed": 1},
            "model": {"name": "linear", "kwargs": {"noise": 0.01}},
            "loss": polar.poisson_loss(),
            "optim": {
                "groups": {"core": dict(group), "readout": dict(group)},
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-8,
                "clip_norm": 5.0,
                "warmup_steps": 2,
                "schedule": "cosine",
                "micro_batches": 4,
                "bounds": {},
                "deterministic": True,
            },
            "train": {
                "num_steps": 12,
                "log_every": 2,
                "eval_every": 4,
                "save_every": 4,
                "eval_batches": 0,
                "keep_latest": 2,
                "keep_best": 1,
                "max_skipped": 3,
                "patience": 0,
                "best_metric": "eval/bits_per_spike",
                "floor_steps": 0,
                "watchdog_minutes": 5.0,
            },
        }
    )
    with config.unlocked(), config.ignore_type():
        for path, value in overrides.items():
            *branches, leaf = path.split(".")
            node = config
            for branch in branches:
                node = node[branch]
            node[leaf] = value
    return config


def make_system(noise=0.01):
    """Returns a two-layer linear Poisson model with a running mean."""

    def init(rng, batch):
        first, second = jax.random.split(rng)
        return {
            "params": {
                "core": {
                    "kernel": 0.3 * jax.random.normal(first, (batch.stimulus.shape[-1], 4)),
                    "bias": jnp.zeros(4),
                },
                "readout": {"kernel": 0.3 * jax.random.normal(second, (4, UNITS))},
            },
            "batch_stats": {"mean": jnp.zeros(4)},
        }

    def hidden(params, batch):
        return batch.stimulus[:, 0, 0, 0] @ params["core"]["kernel"] + params["core"]["bias"][None]

    def predict(params, model_state, batch):
        return (hidden(params, batch) @ params["readout"]["kernel"])[:, None]

    def loss(params, state, batch, rng):
        log_rate = predict(params, state.model_state, batch)
        log_rate = log_rate + noise * jax.random.normal(rng, log_rate.shape)
        value = jnp.mean(batch.valid * (jnp.exp(log_rate) - batch.spikes * log_rate))
        mean = 0.9 * state.model_state["batch_stats"]["mean"] + 0.1 * hidden(params, batch).mean(0)
        return LossOutput(value, {"loss_poisson": value}, {"batch_stats": {"mean": mean}})

    def eval_sums(state, batch):
        log_rate = predict(state.params, state.model_state, batch)
        likelihood = batch.valid * (batch.spikes * log_rate - jnp.exp(log_rate))
        return {"likelihood": likelihood.sum(), "spikes": (batch.valid * batch.spikes).sum()}

    def eval_metrics(sums):
        return {"bits_per_spike": float(sums["likelihood"] / sums["spikes"] / np.log(2))}

    def constants(params):
        return {"temporal/tau_fix_ms": 1e3 * float(jnp.exp(params["core"]["bias"][0]))}

    return System(init, loss, predict, eval_sums, eval_metrics, lambda path: path[0], constants)


def make_data(batch_size=8, *, not_finite=(), fingerprint="abc", sessions=("toy",)):
    """Returns noise whose counts follow a hidden linear model; the steps in `not_finite` hold a NaN."""
    generator = np.random.default_rng(0)
    stimulus = generator.standard_normal((FRAMES, CHANNELS)).astype(np.float32)
    rate = np.exp(stimulus @ generator.standard_normal((CHANNELS, UNITS)) * 0.4)
    resident = {"stimulus": stimulus, "spikes": generator.poisson(rate).astype(np.float32)}
    units = tuple(f"u{i}" for i in range(UNITS))
    entries = tuple(
        SessionInfo(name, "s", units, (1.0,) * UNITS, ((0.0, 0.0),) * UNITS, fingerprint, "")
        for name in sessions
    )

    def request(rows, scale):
        return {"start": rows.astype(np.int32), "scale": np.full(len(rows), scale, np.float32)}

    def train(step):
        rows = np.random.default_rng((7, step)).integers(0, FRAMES // 2, batch_size)
        return request(rows, np.nan if step in not_finite else 1.0)

    def evaluation(tier, batch_size):
        first = FRAMES // 2 if tier == 1 else 3 * FRAMES // 4
        for start in range(first, first + FRAMES // 4, batch_size):
            yield request(np.arange(start, start + batch_size), 1.0)

    def fetch(resident, request):
        frames = resident["stimulus"][request["start"]] * request["scale"][:, None]
        spikes = resident["spikes"][request["start"]][:, None]
        gaze = jnp.zeros((frames.shape[0], 1, 2))
        return Batch(frames[:, None, None, None], gaze, spikes, jnp.ones_like(spikes))

    info = DataInfo(entries, 240.0, 37.5, (1, 1, CHANNELS))
    return Data(info, resident, train, evaluation, fetch, (), lambda: None)
