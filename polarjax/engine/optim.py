"""The optimizer: AdamW by parameter group, one learning-rate schedule, clipping by the global norm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from polarjax.core import ConfigError, PyTree, closest
from polarjax.engine.validation import Range, read_mapping, read_section

SCHEDULES = ("cosine", "constant")


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """How one group of parameters is trained.

    Attributes:
      learning_rate: peak of the schedule; a step of Adam moves a parameter by about as much, so above 1 is a typo.
      weight_decay: decoupled decay of the leaves named 'kernel', in units of the learning rate.
    """

    learning_rate: Annotated[float, Range(0.0, 1.0)]
    weight_decay: Annotated[float, Range(0.0, 100.0)]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The section config.optim.

    Attributes:
      groups: {group: GroupConfig, or None to freeze it}; a group without parameters may only be None.
      b1, b2, eps: of Adam.
      clip_norm: largest global norm of the gradient over all trained parameters.
      warmup_steps: steps of the linear rise from 0.
      schedule: 'cosine' (to 0 at the last step) or 'constant', after the warm-up.
      micro_batches: K; the loss of a step is the mean of its K micro-batches' losses. A multiple of the devices.
      bounds: {quantity of the model: (low, high), or None}, held after every step; the system reads and checks them.
      deterministic: whether the state's bits are those of any number of devices, at K times the traffic between them.
    """

    groups: Any
    b1: Annotated[float, Range(0.0, 1.0, high_open=True)]
    b2: Annotated[float, Range(0.0, 1.0, high_open=True)]
    eps: Annotated[float, Range(0.0, 1.0, low_open=True)]
    clip_norm: Annotated[float, Range(0.0, 1e6, low_open=True)]
    warmup_steps: Annotated[int, Range(0)]
    schedule: str
    micro_batches: Annotated[int, Range(1)]
    bounds: Any
    deterministic: bool

    @classmethod
    def read(cls, section: Any, num_steps: int) -> OptimConfig:
        """Checks config.optim for a run of `num_steps` steps.

        Raises:
          ConfigError: a wrong name, type or range, or a warm-up longer than the run.
        """
        config = read_section(cls, section, "config.optim")
        if config.schedule not in SCHEDULES:
            raise ConfigError(
                f"config.optim.schedule is {config.schedule!r}{closest(config.schedule, SCHEDULES)}"
            )
        if config.warmup_steps > num_steps:
            raise ConfigError(
                f"config.optim.warmup_steps is {config.warmup_steps}, longer than config.train.num_steps, "
                f"{num_steps}; the run would end before it reaches its learning rate"
            )
        groups = {
            name: None if group is None else read_section(GroupConfig, group, f"config.optim.groups.{name}")
            for name, group in read_mapping(config.groups, "config.optim.groups").items()
        }
        return dataclasses.replace(config, groups=groups)


class Optimizer(NamedTuple):
    """An optimizer whose learning rates follow the step of the run, skipped steps included.

    Attributes:
      init: params -> opt_state.
      hold: params -> the same, through which no gradient reaches a frozen group, nor is one computed for it.
      update: (gradients, opt_state, params, step) -> (updates to add, opt_state).
      learning_rates: step -> {group: rate} of the trained groups.
      clip_norm: norm above which `update` scales the gradients down.
      num_steps: length of the run.
    """

    init: Callable[[PyTree], PyTree]
    hold: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]
    learning_rates: Callable[[Any], dict[str, Any]]
    clip_norm: float
    num_steps: int


def learning_rate(step, peak: float, *, warmup_steps: int, num_steps: int, schedule: str) -> Float[Array, ""]:
    """Linear rise, then half a cosine or a constant, per step.

        rate = peak step / W                                         for step < W
        rate = peak (1 + cos(pi (step - W) / (num_steps - W))) / 2   after, 'cosine'

    Args:
      step: number of steps done before this one.

    Source: the schedule of the reference's training recipe, with steps for its epochs.
    """
    step = jnp.asarray(step, jnp.float32)
    rise = step / max(warmup_steps, 1)
    progress = jnp.clip((step - warmup_steps) / max(num_steps - warmup_steps, 1), 0.0, 1.0)
    fall = 0.5 * (1.0 + jnp.cos(math.pi * progress)) if schedule == "cosine" else jnp.ones_like(step)
    return peak * jnp.where(step < warmup_steps, rise, fall)


def make_optimizer(
    config: OptimConfig, param_group: Callable[..., str], params: PyTree, num_steps: int
) -> Optimizer:
    """Builds the optimizer for parameters of these names and shapes.

    Args:
      config: the checked section.
      param_group: path of a parameter, a tuple of names, -> group.
      params: nested dict; shapes are enough.
      num_steps: length of the run, where the cosine ends.

    Raises:
      ConfigError: config.optim.groups are not exactly the groups of the parameters.
    """
    labels = label_parameters(param_group, params)
    check_groups(config.groups, labels)
    transform = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.partition({name: _direction(config, group) for name, group in config.groups.items()}, labels),
    )

    def learning_rates(step):
        trained = {name: group.learning_rate for name, group in config.groups.items() if group is not None}
        shape = {key: getattr(config, key) for key in ("warmup_steps", "schedule")}
        return {
            name: learning_rate(step, peak, num_steps=num_steps, **shape) for name, peak in trained.items()
        }

    def hold(params):
        return jax.tree.map(
            lambda label, leaf: jax.lax.stop_gradient(leaf) if config.groups[label] is None else leaf,
            labels,
            params,
        )

    def update(gradients, opt_state, params, step):
        directions, opt_state = transform.update(gradients, opt_state, params)
        rates = learning_rates(step)
        updates = jax.tree.map(
            # Minus zero is what changes no bit of a frozen parameter: -0 + 0 would be 0.
            lambda label, leaf: -rates[label].astype(leaf.dtype) * leaf if label in rates else -0.0 * leaf,
            labels,
            directions,
        )
        return updates, opt_state

    return Optimizer(transform.init, hold, update, learning_rates, config.clip_norm, num_steps)


def label_parameters(param_group: Callable[..., str], params: PyTree) -> PyTree:
    """Returns the tree of parameters with the name of its group at every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: param_group(tuple(key.key for key in path)), params
    )


def check_groups(groups: dict[str, Any], labels: PyTree) -> None:
    """Compares the groups of the config with those of the model; what is not trained may be absent.

    Raises:
      ConfigError: with the names that one side has and the other lacks.
    """
    present = set(jax.tree.leaves(labels))
    trained = {name for name, group in groups.items() if group is not None}
    if not trained <= present <= set(groups):
        raise ConfigError(
            "config.optim.groups must name exactly the parameter groups of the model. "
            f"Without an optimizer: {sorted(present - set(groups))}; "
            f"without a parameter: {sorted(trained - present)} "
            "(set to None what the model does not have)."
        )


def describe_groups(config: OptimConfig, param_group: Callable[..., str], params: PyTree) -> str:
    """Returns the table that a run prints at its start: group, number of parameters, learning rate, decay."""
    labels = label_parameters(param_group, params)
    counts = dict.fromkeys(config.groups, 0)
    for label, leaf in zip(jax.tree.leaves(labels), jax.tree.leaves(params), strict=True):
        counts[label] += leaf.size
    lines = [f"{'group':<16}{'parameters':>12}{'learning rate':>16}{'weight decay':>15}"]
    for name, group in config.groups.items():
        rate, decay = (
            ("frozen", "") if group is None else (f"{group.learning_rate:g}", f"{group.weight_decay:g}")
        )
        lines.append(f"{name:<16}{counts[name]:>12,}{rate:>16}{decay:>15}".rstrip())
    return "\n".join(lines)


def _direction(config: OptimConfig, group: GroupConfig | None) -> optax.GradientTransformation:
    """AdamW before it is multiplied by minus the learning rate."""
    if group is None:
        return optax.set_to_zero()
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(group.weight_decay, mask=_is_kernel),
    )


def _is_kernel(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
