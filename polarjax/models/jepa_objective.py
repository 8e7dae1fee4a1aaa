"""Self-supervision of a Polar-V1: config.model.jepa, its head, its target network and its loss on a segment.

    context maps (T-1-delta) --project--> code --hide masked, + action--> prediction  ~  target code (T-1)

The target code comes from a slow copy of trunk and projectors ('ema'), from the same network without a gradient
('stop_gradient'), or from the same network with one ('none', with which codes collapse unless a penalty spreads them).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.core import READOUT, Batch, ConfigError, PyTree, closest
from polarjax.models.jepa_head import (
    JepaHead,
    JepaTerms,
    Levels,
    jepa_terms,
    pooled_penalty,
    spread_means,
    spread_penalty,
    watch,
)
from polarjax.models.jepa_pairs import context_frames, interval_action, random_masks
from polarjax.models.polar_v1 import PolarV1
from polarjax.models.summary_maps import summary_maps
from polarjax.ops.spread import PENALTIES
from polarjax.ops.target_network import ema, target_decay

TARGETS = ("ema", "stop_gradient", "none")
JEPA = "jepa"
TERMS = (JEPA, *PENALTIES)


class JepaOptions(NamedTuple):
    """The section config.model.jepa.

    Attributes:
      width: of the codes, K.
      deltas: how many frames before the target the contexts end, one loss each.
      predictor_size: support of the predictor, an odd number of positions.
      hides_masked: the code is replaced by a learned token where the loss is read.
      normalizes_prediction: to unit length; without it the loss has no lower bound.
      sees_gaze: the predictor gets the mean gaze code of the frames between context and target, the action.
      mask_ratio: share of the positions where the loss is read.
      target: 'ema', 'stop_gradient' or 'none'.
      target_decay: of the moving average at the start of the run; it goes to 1, as a cosine.
    """

    width: int
    deltas: tuple[int, ...]
    predictor_size: int
    hides_masked: bool
    normalizes_prediction: bool
    sees_gaze: bool
    mask_ratio: float
    target: str
    target_decay: float


class Objective(NamedTuple):
    """Options that fit a model and its segments.

    Attributes:
      module: the model whose summaries are predicted.
      head: projectors and predictors.
      contexts: last frames of the contexts.
      last: frame of the target.
    """

    module: PolarV1
    head: JepaHead
    options: JepaOptions
    contexts: tuple[int, ...]
    last: int


class _Seen(NamedTuple):
    """Maps of the contexts and of the target, and what the eye did between them, None without."""

    contexts: list[Levels]
    actions: list[Any]
    target: Levels


def read_objective(section: Any, module: Any, n_frames: int) -> Objective:
    """Checks config.model.jepa.

    Args:
      section: with exactly the keys of `JepaOptions`.
      module: the model.
      n_frames: length of the segments, burn-in and predicted.

    Raises:
      ConfigError: a key or value is wrong, segments are no longer than delta, or the model has nothing to predict.
    """
    where = "config.model.jepa"
    if not isinstance(module, PolarV1):
        raise ConfigError(
            f"{where} is set, but {type(module).__name__} has no summaries to predict; only polar_v1 has."
        )
    unknown, missing = set(section) - set(JepaOptions._fields), set(JepaOptions._fields) - set(section)
    for name in sorted(unknown):
        raise ConfigError(f"{where}.{name} is unknown{closest(name, JepaOptions._fields)}.")
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(sorted(missing))}; every key has to be set.")
    values: list[Any] = [section[name] for name in JepaOptions._fields]
    options = JepaOptions(*values)
    _check(options, module, where)
    options = options._replace(deltas=tuple(options.deltas))
    contexts = context_frames(n_frames, options.deltas)
    kept = {name: getattr(options, name) for name in JepaHead.__dataclass_fields__ if name in options._fields}
    head = JepaHead(module.n_levels, **kept)
    return Objective(module, head, options, contexts, n_frames - 1)


def _check(options: JepaOptions, module: PolarV1, where: str) -> None:
    if options.target not in TARGETS:
        raise ConfigError(f"{where}.target is {options.target!r}{closest(str(options.target), TARGETS)}.")
    for name in ("hides_masked", "normalizes_prediction", "sees_gaze"):
        if not isinstance(getattr(options, name), bool):
            raise ConfigError(f"{where}.{name} is {getattr(options, name)!r}; allowed are True and False.")
    if not isinstance(options.deltas, tuple | list):
        raise ConfigError(f"{where}.deltas is {options.deltas!r}; expected numbers of frames, such as (5,).")
    lowest = {"width": 1, "predictor_size": 1}
    for name, least in lowest.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{where}.{name} is {value!r}; allowed are whole numbers >= {least}.")
    if options.predictor_size % 2 == 0:
        raise ConfigError(f"{where}.predictor_size is {options.predictor_size!r}; allowed are odd numbers.")
    for name, low in (("mask_ratio", 0.0), ("target_decay", 0.0)):
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= 1:
            raise ConfigError(f"{where}.{name} is {value!r}; allowed are numbers in ({low:g}, 1].")
    if options.sees_gaze and not module.uses_gaze:
        raise ConfigError(
            f"{where}.sees_gaze is True, but the model has no gaze code (gaze {module.gaze!r}, dynamics "
            f"{module.dynamics!r}); set it to False, or give the model a gaze."
        )


def init_head(objective: Objective, rng: Array, variables: PyTree, batch: Batch) -> PyTree:
    """Draws the head's parameters for a model's variables; only the shapes of the batch matter."""
    contexts, actions = jax.eval_shape(lambda: _contexts(objective, variables, batch)[:2])
    context, action = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (contexts[0], actions[0]))
    masks = [jnp.ones(x.shape[:3], bool) for x in context]
    return objective.head.init(rng, context, masks, action)["params"]


def initial_target(objective: Objective, params: PyTree) -> PyTree:
    """Returns the slow copy before the first step, trunk and projectors; None where there is none."""
    return jax.tree.map(jnp.array, followed(params)) if objective.options.target == "ema" else None


def followed(params: PyTree) -> PyTree:
    """Returns what a target network has: all parameters but readouts and predictors."""
    trunk = {name: leaf for name, leaf in params.items() if name not in (READOUT, JEPA)}
    projectors = {name: leaf for name, leaf in params[JEPA].items() if name.startswith("projector")}
    return trunk | {JEPA: projectors}


def move_target(objective: Objective, target_params: PyTree, params: PyTree, progress: Any) -> PyTree:
    """Returns the slow copy after a step, from the parameters before it; None where there is none."""
    if objective.options.target != "ema":
        return None
    return ema(target_params, followed(params), target_decay(objective.options.target_decay, progress))


def predict_maps(
    objective: Objective, params: PyTree, model_state: PyTree, target_params: PyTree, batch: Batch, key: Array
) -> JepaTerms:
    """Returns the loss on the segments of a batch, with masks drawn from the key."""
    seen = _see(objective, params, model_state, target_params, batch)
    return _compare(objective, params, target_params, seen, key)


def penalise(
    names: tuple[str, ...], codes: Levels, step: Any, whole: PyTree, n_parts: int
) -> dict[str, Float[Array, ""]]:
    """Returns those penalties of `ops.spread` that are named.

    Args:
      codes: of the contexts.
      step: of the run; it draws what is random in a penalty.
      whole: the mean of `code_means` over the parts of a batch, to penalise all its codes; None: these codes alone.
      n_parts: how many parts there are.
    """
    key = _directions(step)
    if whole is None:
        return {name: spread_penalty(name, codes, key) for name in names}
    return {name: pooled_penalty(name, codes, key, whole[name], n_parts) for name in names}


def code_means(objective: Objective, names: tuple[str, ...], state: Any, batch: Batch) -> PyTree:
    """Returns what the named penalties need to know of the codes of a part of a batch; see `penalise`."""
    variables, contexts = {"params": state.params, **state.model_state}, objective.contexts[-1:]
    (maps,), _ = _maps(objective, variables, batch, contexts)
    codes: Any = objective.head.apply({"params": state.params[JEPA]}, maps, method="project")
    return {name: spread_means(name, codes, _directions(state.step)) for name in names}


def watch_codes(objective: Objective, state: Any, batch: Batch) -> dict[str, Array]:
    """Returns numbers of a batch to be added over batches: the loss, and how collapsed the codes of contexts are.

    'loss_other_gaze' is the loss where every example has the action of another one, absent where there is no other. The
    masks of all evaluations are the same.
    """
    params, target = state.params, state.target_params
    seen = _see(objective, params, state.model_state, target, batch)
    terms = _compare(objective, params, target, seen, jax.random.key(0))
    numbers = {"batches": jnp.ones(()), "loss": terms.loss, **watch("code", terms.codes)}
    if objective.options.sees_gaze and len(batch.stimulus) > 1:
        rolled = seen._replace(actions=[jnp.roll(action, 1, 0) for action in seen.actions])
        numbers["loss_other_gaze"] = _compare(objective, params, target, rolled, jax.random.key(0)).loss
    return {name.removeprefix("code/"): value for name, value in numbers.items()}


def mean_watched(sums: dict[str, Any]) -> dict[str, float]:
    """Returns the means of what `watch_codes` says over batches: of every level, 'jepa/rank_0', and over levels."""
    numbers = {
        name: float(value) / float(sums["batches"]) for name, value in sums.items() if name != "batches"
    }
    by_level: dict[str, list[float]] = {}
    for name, value in numbers.items():
        kind, _, level = name.rpartition("_")
        if level.isdigit():
            by_level.setdefault(kind, []).append(value)
    numbers |= {name: float(np.mean(values)) for name, values in by_level.items()}
    return {f"jepa/{name}": value for name, value in numbers.items()}


def _directions(step: Any) -> Array:
    """Returns the key of all parts of a step."""
    return jax.random.fold_in(jax.random.key(0), step)


def _maps(objective: Objective, variables: PyTree, batch: Batch, frames: tuple[int, ...]) -> Any:
    given = (batch.stimulus, batch.gaze, frames)
    return objective.module.apply(variables, *given, method=summary_maps)


def _contexts(objective: Objective, variables: PyTree, batch: Batch) -> tuple[list, list, list]:
    """Returns the maps of the contexts, the actions, and the maps of the target by the same network."""
    maps, behavior = _maps(objective, variables, batch, (*objective.contexts, objective.last))
    deltas = objective.options.deltas
    if not objective.options.sees_gaze:
        return maps[:-1], [None] * len(deltas), maps[-1]
    return maps[:-1], [interval_action(behavior.code, delta) for delta in deltas], maps[-1]


def _see(
    objective: Objective, params: PyTree, model_state: PyTree, target_params: PyTree, batch: Batch
) -> _Seen:
    seen = _Seen(*_contexts(objective, {"params": params, **model_state}, batch))
    if objective.options.target != "ema":
        return seen
    copied = {"params": {**params, **target_params}, **model_state}
    slow = _maps(objective, copied, batch, (objective.last,))[0][0]
    return seen._replace(target=jax.lax.stop_gradient(slow))


def _compare(
    objective: Objective, params: PyTree, target_params: PyTree, seen: _Seen, key: Array
) -> JepaTerms:
    options = objective.options
    slow = {**params[JEPA], **target_params[JEPA]} if options.target == "ema" else None
    masks = random_masks(key, seen.target, ratio=options.mask_ratio)
    given = (objective.head, params[JEPA], slow, seen.contexts, seen.target, masks, seen.actions)
    return jepa_terms(*given, detached=options.target != "none")
