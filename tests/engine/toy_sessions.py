"""The toy system with a readout for every session and features that are centred by their first batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.core import READOUT, LossOutput, System
from tests.engine import toy
from tests.engine.runs import run

WIDTH = 4
MODEL = {
    "width",
    "heads",
    "repeats",
    "spiking",
    "collection",
}  # options of the system; the others are the run's


def make_data(**units):
    """Returns the noise of the toy for sessions with so many units, as in a=3, b=2."""
    data = toy.make_data(sessions=tuple(units))
    named = zip(data.info.sessions, units.values(), strict=True)
    sessions = tuple(
        dataclasses.replace(session, unit_ids=session.unit_ids[:count]) for session, count in named
    )
    info = dataclasses.replace(data.info, sessions=sessions)

    def fetch(resident, request):
        batch = data.fetch(resident, request)
        spikes = batch.spikes[..., : info.max_units]
        return batch._replace(spikes=spikes, valid=jnp.ones_like(spikes))

    return data._replace(info=info, fetch=fetch)


def make_system(info, *, width=WIDTH, heads=(), repeats=1, spiking=True, collection="statistics"):
    """Returns a linear core, readouts [S, N, ..] of repeated features, and heads that no loss trains.

    Without `spiking` the loss is that of the core alone.
    """
    units = (len(info.sessions), info.max_units)

    def init(rng, batch):
        first, second, third = jax.random.split(rng, 3)
        core = {"kernel": 0.3 * jax.random.normal(first, (toy.CHANNELS, width)), "bias": jnp.zeros(width)}
        readout = {
            "kernel": 0.3 * jax.random.normal(second, (*units, repeats * width)),
            "bias": jnp.zeros(units),
        }
        params = {"core": core, "readout": readout}
        params |= {name: {"kernel": jax.random.normal(third, (2,))} for name in heads}
        return measure({"params": params, collection: {"mean": jnp.zeros(width)}}, batch)

    def hidden(params, batch):
        return batch.stimulus[:, 0, 0, 0] @ params["core"]["kernel"] + params["core"]["bias"][None]

    def measure(variables, batch):
        return variables | {collection: {"mean": hidden(variables["params"], batch).mean(0)}}

    def predict(params, model_state, batch):
        centred = hidden(params, batch) - model_state[collection]["mean"][None]
        grouped = centred.reshape(-1, units[0], width)
        grouped = jnp.concatenate([grouped] * repeats, axis=-1)
        drive = jnp.einsum("bsd,snd->bsn", grouped, params["readout"]["kernel"])
        return (drive + params["readout"]["bias"][None]).reshape(-1, 1, units[1])

    def loss(params, state, batch, rng):
        log_rate = predict(params, state.model_state, batch)
        value = jnp.mean(batch.valid * (jnp.exp(log_rate) - batch.spikes * log_rate))
        if not spiking:
            value = jnp.mean(hidden(params, batch) ** 2)
        return LossOutput(value, {"loss_poisson": value}, state.model_state)

    def eval_sums(state, batch):
        log_rate = predict(state.params, state.model_state, batch)
        return (batch.spikes * log_rate - jnp.exp(log_rate)).sum()

    def constants(params):
        return {"temporal/tau_fix_ms": 1e3 * float(np.exp(params["core"]["bias"][0]))}

    def eval_metrics(sums):
        return {"bits_per_spike": float(sums)}

    def group(path):
        return READOUT if path[0] == "readout" else "core"

    return System(init, loss, predict, eval_sums, eval_metrics, group, constants, measure=measure)


def train(workdir, sessions, *, metrics=None, **options):
    """Trains the system on sessions as in `make_data`; `metrics` stands in for what evaluations say, one by one."""
    data = make_data(**sessions)
    own = {name: options.pop(name) for name in MODEL & set(options)}
    system = make_system(data.info, **own)
    if metrics is not None:
        left = iter(metrics)
        system = system._replace(eval_metrics=lambda sums: {"bits_per_spike": next(left)})
    return run(workdir, data=data, system=system, **options)
