"""Polar-V1, the residual baseline and the linear-nonlinear floor: model, losses, spikes of several sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

from polarjax import losses, metrics
from polarjax.core import READOUT, Batch, ConfigError, DataInfo, LossOutput, PyTree, System, closest
from polarjax.loss_weights import LossWeights, read_weights
from polarjax.models import bounds, constants, regularisers, silence
from polarjax.models.linear_nonlinear import LinearNonlinear
from polarjax.models.polar_v1 import PolarV1
from polarjax.models.readout import nested
from polarjax.models.resnet_convgru import ResnetConvGRU

FLOOR = "linear_nonlinear"
MODELS = {"polar_v1": PolarV1, "resnet_convgru": ResnetConvGRU, FLOOR: LinearNonlinear}
LIKELIHOODS = POISSON, ZERO_INFLATED = ("poisson", "zero_inflated_poisson")
CONSTANT_GROUPS: dict[tuple[str, ...], str] = {path: name for name, (path, _) in constants.PLACES.items()}
SMALLEST_RATE = 1e-4
FLOOR_RANK, FLOOR_EVALUATIONS = 2, 5
FLOOR_GROUP = {"learning_rate": 1e-2, "weight_decay": 0.0}
FROM_DATA = (
    "n_units",
    "frame_shape",
    "dt",
    "pixels_per_degree",
    "initial_mean",
    "initial_rate",
    "parent",
    "name",
)


def build(config: Any, info: DataInfo) -> System:
    """Builds the system of config.model for the sessions of `info`.

    Raises:
      ConfigError: a name in config.model, config.loss or config.optim.bounds is unknown, or a value is not allowed.
    """
    module: Any = make_module(config, info)
    weights = _read_weights(config, module)
    limits = bounds.read_bounds(module, dict(config.optim.bounds))
    n_units = tuple(len(session.unit_ids) for session in info.sessions)
    null_rate = _padded(info, [session.mean_count for session in info.sessions])

    def init(rng: Array, batch: Batch) -> PyTree:
        return measure(module.init(rng, batch.stimulus[:, :1], batch.gaze[:, :1]), batch)

    def measure(variables: PyTree, batch: Batch) -> PyTree:
        if "statistics" not in variables:
            return variables
        scored = batch.spikes.shape[1]
        _, intermediates = module.apply(variables, batch.stimulus, batch.gaze, scored, method="predict")
        return variables | {"statistics": feature_statistics(intermediates["pooled"])}

    def log_rates(
        params: PyTree, model_state: PyTree, batch: Batch, dropout: Array | None = None
    ) -> Float[Array, "B n N"]:
        given = (batch.stimulus, batch.gaze, batch.spikes.shape[1])
        rngs = None if dropout is None else {"dropout": dropout}
        return module.apply({"params": params, **model_state}, *given, method="predict", rngs=rngs)[0]

    def predict(params: PyTree, model_state: PyTree, batch: Batch) -> Float[Array, "B n N"]:
        log_rate = log_rates(params, model_state, batch)
        return silence.log_mean(params, log_rate) if module.zero_inflated else log_rate

    def loss(params: PyTree, state: Any, batch: Batch, rng: Array) -> LossOutput:
        log_rate = log_rates(params, state.model_state, batch, dropout=rng)
        silent = silence.silence(params, len(log_rate)) if module.zero_inflated else None
        name = ZERO_INFLATED if module.zero_inflated else POISSON
        terms = {name: losses.session_mean_nll(log_rate, batch, n_units, silent)}
        terms |= regularisers.regularise(module, params, weights.full)
        now = weights.at(state.step)
        total = sum((now[name] * value for name, value in terms.items()), jnp.zeros(()))
        return LossOutput(total, {f"loss_{name}": value for name, value in terms.items()}, state.model_state)

    def eval_sums(state: Any, batch: Batch) -> PyTree:
        log_rate = predict(state.params, state.model_state, batch)
        return metrics.poisson_sums(
            *(losses.by_session(x, len(info.sessions)) for x in (log_rate, batch.spikes, batch.valid))
        )

    def eval_metrics(sums: PyTree) -> dict[str, float]:
        flat = {name: np.asarray(value).reshape(-1) for name, value in sums.items()}
        bits = metrics.bits_per_spike_from_sums(flat, null_rate.reshape(-1))
        correlation = metrics.correlation_from_sums(flat)
        return {
            "bits_per_spike": _mean(bits),
            "bits_per_spike_median": float(np.nanmedian(bits)) if np.isfinite(bits).any() else float("nan"),
            "correlation": _mean(correlation),
            "units_left_out": float(sum(len(s.unit_ids) for s in info.sessions) - np.isfinite(bits).sum()),
        }

    def natural(params: PyTree) -> dict[str, Array]:
        return natural_constants(module.time_constants(params), info.rate_hz)

    def project(params: PyTree, progress: Any) -> PyTree:
        return bounds.project(module, params, limits, progress)

    group = param_group(config.model.name)
    return System(init, loss, predict, eval_sums, eval_metrics, group, natural, project, measure)


def make_module(config: Any, info: DataInfo) -> PolarV1 | ResnetConvGRU | LinearNonlinear:
    """Builds the Flax module of config.model for the sessions of `info`.

    Raises:
      ConfigError: config.model.name or a keyword of config.model.kwargs is unknown.
    """
    name, kwargs = config.model.name, dict(config.model.kwargs)
    if name not in MODELS:
        raise ConfigError(f"config.model.name is {name!r}{closest(str(name), MODELS)}.")
    fields = {field.name for field in dataclasses.fields(MODELS[name])}
    for key in kwargs:
        if key not in fields - set(FROM_DATA):
            raise ConfigError(
                f"config.model.kwargs.{key} is no argument of {name!r}{closest(key, fields - set(FROM_DATA))}."
            )
    rates = np.maximum(_padded(info, [session.mean_count for session in info.sessions], 1.0), SMALLEST_RATE)
    given = {
        "n_units": tuple(len(session.unit_ids) for session in info.sessions),
        "frame_shape": tuple(info.frame_shape),
        "dt": 1 / info.rate_hz,
        "pixels_per_degree": info.pixels_per_degree,
        "initial_mean": nested(_padded(info, [session.position_deg for session in info.sessions])),
        "initial_rate": nested(rates),
    }
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    model: Any = MODELS[name]
    return model(**{key: value for key, value in given.items() if key in fields}, **kwargs)


def floor(config: Any) -> ml_collections.ConfigDict | None:
    """Derives the config of the linear-nonlinear model that sees the same segments; see `systems.floor`.

    Its filters span the burn-in and the scored frame, the least that Polar-V1 has seen. The best of five evaluations
    on the validation tier is kept, so that a floor that overfits is not taken for a low one.
    """
    steps = config.train.floor_steps
    if steps == 0 or config.model.name == FLOOR:
        return None
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
    """Returns the rule path -> optimizer group: core, readout, or the name of one of the four time constants."""

    def group(path: tuple[str, ...]) -> str:
        if model_name == FLOOR or path[0] == "readout":
            return READOUT
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


def needs_gaze(config: Any, info: DataInfo) -> bool:
    """Whether the model of a config cannot predict without gaze."""
    return make_module(config, info).uses_gaze


def select_session(variables: PyTree, info: DataInfo, index: int, model_name: str) -> PyTree:
    """Cuts the readouts of all sessions [S, N, ..] down to those of one session's own units [1, n, ..]."""
    group, n_units = param_group(model_name), len(info.sessions[index].unit_ids)

    def cut(path: tuple, leaf: Any) -> Any:
        names = tuple(key.key for key in path)
        return leaf[index : index + 1, :n_units] if group(names) == READOUT else leaf

    return {**variables, "params": jax.tree_util.tree_map_with_path(cut, variables["params"])}


def make_predictors(config: Any, info: DataInfo, index: int) -> tuple[Callable, Callable, Callable]:
    """Makes the functions that predict movies of session `index`: windows, and movies piece by piece.

    Returns:
      window(variables, stimulus [B,T,H,W,C], gaze [B,T,2] or None) -> log rates [B,n] at the last frame, for the
      session's n units; initial(variables, batch_size) -> memory; and advance(variables, memory, stimulus, gaze) ->
      (memory, log rates [B,T,n]). `variables` is what `select_session` returns.
    """
    module: Any = make_module(config, dataclasses.replace(info, sessions=(info.sessions[index],)))

    def mean(variables: PyTree, log_rate: Array) -> Array:
        return silence.log_mean(variables["params"], log_rate) if module.zero_inflated else log_rate

    @jax.jit
    def window(variables: PyTree, stimulus: Array, gaze: Array | None) -> Array:
        return mean(variables, module.apply(variables, stimulus, gaze, 1, method="predict")[0])[:, 0]

    def initial(variables: PyTree, batch_size: int) -> PyTree:
        return module.apply(variables, batch_size, tuple(info.frame_shape[:2]), method="initial_memory")

    @jax.jit
    def advance(
        variables: PyTree, memory: PyTree, stimulus: Array, gaze: Array | None
    ) -> tuple[PyTree, Array]:
        memory, log_rate, _ = module.apply(variables, stimulus, gaze, memory, method="advance")
        return memory, mean(variables, log_rate)

    return window, initial, advance


def _read_weights(config: Any, module: Any) -> LossWeights:
    weights = read_weights(config.loss, LIKELIHOODS, regularisers.TERMS, config.train.num_steps)
    if module.zero_inflated is not (ZERO_INFLATED in weights.full):
        given = ", ".join(f"{name} {config.loss.weights[name]!r}" for name in LIKELIHOODS)
        raise ConfigError(
            f"config.loss.weights has {given}, but config.model.kwargs.zero_inflated is {module.zero_inflated!r}; "
            f"{ZERO_INFLATED} needs a model with zero_inflated=True, and only it."
        )
    regularisers.check_terms(module, weights.full)
    return weights


def _padded(info: DataInfo, values: Any, fill: float = 0.0) -> np.ndarray:
    first = np.asarray(max(values, key=len))  # what a session without units holds does not tell the shape
    padded = np.full((len(info.sessions), info.max_units, *first.shape[1:]), fill)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = np.reshape(value, (len(value), *first.shape[1:]))
    return padded


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
