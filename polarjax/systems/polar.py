"""Polar-V1, the residual baseline and the linear-nonlinear floor: model, losses, spikes of several sessions.

The loss is any mix of the likelihood of spikes and, with config.model.jepa, of self-supervision: see
`models.jepa_objective`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

from polarjax import losses, metrics
from polarjax.core import READOUT, Batch, ConfigError, DataInfo, LossOutput, PyTree, System
from polarjax.loss_weights import LossWeights, read_weights
from polarjax.models import bounds, constants, jepa_objective, regularisers, silence
from polarjax.models.build import FLOOR, is_readout, make_module, padded

LOGGER = logging.getLogger(__name__)
LIKELIHOODS = POISSON, ZERO_INFLATED = ("poisson", "zero_inflated_poisson")
CONSTANT_GROUPS: dict[tuple[str, ...], str] = {path: name for name, (path, _) in constants.PLACES.items()}
FLOOR_RANK, FLOOR_EVALUATIONS = 2, 5
FLOOR_GROUP = {"learning_rate": 1e-2, "weight_decay": 0.0}


def build(config: Any, info: DataInfo) -> System:
    """Builds the system of config.model for the sessions of `info`.

    Raises:
      ConfigError: a name in config.model, config.loss or config.optim.bounds is unknown, or a value is not allowed.
    """
    module: Any = make_module(config, info)
    for warning in constants.describe_stuck(module):
        LOGGER.warning(warning)
    objective = _read_objective(config, module)
    n_units = tuple(len(session.unit_ids) for session in info.sessions)
    weights = _read_weights(config, module, objective, recorded=any(n_units))
    limits = bounds.read_bounds(module, dict(config.optim.bounds))
    null_rate = padded(info, [session.mean_count for session in info.sessions])
    spread = tuple(name for name in jepa_objective.PENALTIES if name in weights.full)
    n_parts = config.optim.micro_batches if spread else 1

    def init(rng: Array, batch: Batch) -> PyTree:
        variables = module.init(rng, batch.stimulus[:, :1], batch.gaze[:, :1])
        if objective is not None:
            head = jepa_objective.init_head(objective, jax.random.fold_in(rng, 1), variables, batch)
            variables = {**variables, "params": {**variables["params"], jepa_objective.JEPA: head}}
        return measure(variables, batch)

    def measure(variables: PyTree, batch: Batch) -> PyTree:
        variables = dict(variables)
        if "statistics" in variables:
            scored = batch.spikes.shape[1]
            _, intermediates = module.apply(variables, batch.stimulus, batch.gaze, scored, method="predict")
            variables["statistics"] = feature_statistics(intermediates["pooled"])
        if objective is not None:
            variables["target"] = jepa_objective.initial_target(objective, variables["params"])
        return variables

    def log_rates(
        params: PyTree, model_state: PyTree, batch: Batch, dropout: Array | None = None
    ) -> Float[Array, "B n N"]:
        given = (batch.stimulus, batch.gaze, batch.spikes.shape[1])
        rngs = None if dropout is None else {"dropout": dropout}
        return module.apply({"params": params, **model_state}, *given, method="predict", rngs=rngs)[0]

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> Float[Array, "B n N"]:
        log_rate = log_rates(params, model_state, batch)
        return silence.log_mean(params, log_rate) if module.zero_inflated else log_rate

    def likelihood(params: PyTree, state: Any, batch: Batch, dropout: Array) -> dict[str, Array]:
        log_rate = log_rates(params, state.model_state, batch, dropout=dropout)
        silent = silence.silence(params, len(log_rate)) if module.zero_inflated else None
        name = ZERO_INFLATED if module.zero_inflated else POISSON
        return {name: losses.session_mean_nll(log_rate, batch, n_units, silent)}

    def loss(params: PyTree, state: Any, batch: Batch, rng: Array, pooled: PyTree = None) -> LossOutput:
        dropout, masking = jax.random.split(rng)
        terms, target = regularisers.regularise(module, params, weights.full), state.target_params
        if not weights.full.keys().isdisjoint(LIKELIHOODS):
            terms |= likelihood(params, state, batch, dropout)
        if objective is not None:
            given = (params, state.model_state, target, batch, masking)
            predicted = jepa_objective.predict_maps(objective, *given)
            terms |= {
                jepa_objective.JEPA: predicted.loss,
                **jepa_objective.penalise(spread, predicted.codes, state.step, pooled, n_parts),
            }
            progress = state.step / weights.num_steps
            target = jepa_objective.move_target(objective, target, params, progress)
        now = weights.at(state.step)
        total = sum((now[name] * value for name, value in terms.items() if name in now), jnp.zeros(()))
        scalars = {f"loss_{name}": value for name, value in terms.items()}
        return LossOutput(total, scalars, state.model_state, target)

    def eval_sums(state: Any, batch: Batch) -> PyTree:
        watched = {} if objective is None else jepa_objective.watch_codes(objective, state, batch)
        if not any(n_units):
            return {"counts": {}, "jepa": watched}
        log_rate = predict(state.params, state.model_state, batch)
        parts = (losses.by_session(x, len(n_units)) for x in (log_rate, batch.spikes, batch.valid))
        return {"counts": metrics.poisson_sums(*parts), "jepa": watched}

    def eval_metrics(sums: PyTree) -> dict[str, float]:
        watched = jepa_objective.mean_watched(sums["jepa"]) if sums["jepa"] else {}
        if not any(n_units):
            return watched
        flat = {name: np.asarray(value).reshape(-1) for name, value in sums["counts"].items()}
        bits = metrics.bits_per_spike_from_sums(flat, null_rate.reshape(-1))
        correlation = metrics.correlation_from_sums(flat)
        return watched | {
            "bits_per_spike": _mean(bits),
            "bits_per_spike_median": float(np.nanmedian(bits)) if np.isfinite(bits).any() else float("nan"),
            "correlation": _mean(correlation),
            "units_left_out": float(sum(n_units) - np.isfinite(bits).sum()),
        }

    def natural(params: PyTree) -> dict[str, Array]:
        return natural_constants(module.time_constants(params), info.rate_hz)

    def project(params: PyTree, progress: Any) -> PyTree:
        return bounds.project(module, params, limits, progress)

    group, pool = param_group(config.model.name), None
    if objective is not None and spread and n_parts > 1:
        pool = functools.partial(jepa_objective.code_means, objective, spread)
    return System(init, loss, predict, eval_sums, eval_metrics, group, natural, project, measure, pool)


def floor(config: Any) -> ml_collections.ConfigDict | None:
    """Derives the config of the linear-nonlinear model that sees the same segments; see `systems.floor`.

    Its filters span the burn-in and the scored frame, the least that Polar-V1 has seen. The best of five evaluations
    on the validation tier is kept, so that a floor that overfits is not taken for a low one.

    Raises:
      ConfigError: there are floor steps, and no likelihood to train them on.
    """
    steps = config.train.floor_steps
    if steps == 0 or config.model.name == FLOOR:
        return None
    if not any(config.loss.weights[name] for name in LIKELIHOODS):
        raise ConfigError(
            f"config.train.floor_steps is {steps}, but config.loss.weights has no likelihood: there is nothing to "
            "compare with a linear-nonlinear model. Set floor_steps to 0."
        )
    fields = config.to_dict()
    kwargs = {"n_lags": config.data.burn_in + 1, "rank": FLOOR_RANK}
    fields["init_from"] = ""  # it has no core
    fields["model"] = {"name": FLOOR, "kwargs": kwargs}
    fields["loss"] = poisson_loss()
    fields["optim"] |= {
        "groups": {"readout": FLOOR_GROUP},
        "bounds": {},
        "warmup_steps": steps // 20,
        "schedule": "cosine",
    }
    every = max(steps // FLOOR_EVALUATIONS, 1)
    fields["train"] |= dict.fromkeys(("log_every", "eval_every", "save_every"), every)
    fields["train"] |= {"num_steps": steps, "floor_steps": 0, "patience": 0}
    fields["train"] |= {"keep_latest": 1, "keep_best": 1}
    return ml_collections.ConfigDict(fields)


def poisson_loss() -> dict[str, Any]:
    """Returns the section config.loss of the plain Poisson loss."""
    weights = {**dict.fromkeys((*LIKELIHOODS, *regularisers.TERMS), 0.0), POISSON: 1.0}
    return {"weights": weights, "schedules": dict.fromkeys(regularisers.TERMS)}


def param_group(model_name: str) -> Callable[[tuple[str, ...]], str]:
    """Returns the rule path -> optimizer group: core, readout, jepa, or the name of one of the four time constants."""

    def group(path: tuple[str, ...]) -> str:
        if is_readout(model_name, path):
            return READOUT
        if path[0] == jepa_objective.JEPA:
            return jepa_objective.JEPA
        return CONSTANT_GROUPS.get(path, "core")

    return group


def feature_statistics(scored: Float[Array, "B n N L D"]) -> dict[str, Array]:
    """Returns mean and deviation [L, D] of the features at the predicted frames of a batch."""
    scale = scored.std((0, 1, 2))
    return {"mean": scored.mean((0, 1, 2)), "scale": jnp.maximum(scale, 1e-3 * scale.mean() + 1e-6)}


def natural_constants(constants: Mapping[str, Array], rate_hz: float) -> dict[str, Array]:
    """Adds to rates (1/s) and alphas (a frame) their memories in ms: 1000/lambda and -1000 dt/ln(alpha)."""
    memories = {}
    for name, value in constants.items():
        kind, which = name.split("_")
        memory = 1e3 / value if kind == "lambda" else -1e3 / rate_hz / jnp.log(value)
        memories |= {f"temporal/{name}": value, f"temporal/tau_{which}_ms": memory}
    return memories


def starting_constants(config: Any, info: DataInfo) -> dict[str, float]:
    """Returns the constants of `System.constants` at their starts."""
    module = make_module(config, info)
    starts = {
        name: jnp.asarray(getattr(module, constants.PLACES[name][1])) for name in constants.names_of(module)
    }
    return {name: float(value) for name, value in natural_constants(starts, info.rate_hz).items()}


def _read_objective(config: Any, module: Any) -> jepa_objective.Objective | None:
    if "jepa" not in config.model or config.model.jepa is None:
        return None
    return jepa_objective.read_objective(
        config.model.jepa, module, config.data.burn_in + config.data.predicted
    )


def _read_weights(
    config: Any, module: Any, objective: jepa_objective.Objective | None, *, recorded: bool
) -> LossWeights:
    predicted = jepa_objective.TERMS if objective else ()
    terms = regularisers.TERMS + predicted
    unwanted = sorted(set(config.loss.weights) & set(jepa_objective.TERMS) - set(predicted))
    if unwanted:
        raise ConfigError(
            f"config.loss.weights has {', '.join(unwanted)}, terms of self-supervision, but config.model.jepa is not "
            "set; set it as configs/polar_jepa.py does, or start from configs/polar.py."
        )
    weights = read_weights(config.loss, LIKELIHOODS, terms, config.train.num_steps, alone=predicted[:1])
    scored = [name for name in LIKELIHOODS if name in weights.full]
    if scored and not recorded:
        raise ConfigError(
            f"config.loss.weights.{scored[0]} is not 0, but no session has units; give sessions with spikes, or "
            "train without them as configs/polar_jepa_pretrain.py does."
        )
    if scored and module.zero_inflated is not (scored == [ZERO_INFLATED]):
        given = ", ".join(f"{name} {config.loss.weights[name]!r}" for name in LIKELIHOODS)
        raise ConfigError(
            f"config.loss.weights has {given}, but config.model.kwargs.zero_inflated is {module.zero_inflated!r}; "
            f"{ZERO_INFLATED} needs a model with zero_inflated=True, and only it."
        )
    regularisers.check_terms(module, weights.full)
    return weights


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
