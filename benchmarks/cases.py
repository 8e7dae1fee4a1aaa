"""The rows of the comparison: models, sizes and batches, and our side of each as a compiled train step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import polar
from polarjax import systems
from polarjax.core import Batch, DataInfo, PyTree, SessionInfo, System
from polarjax.engine import sharding
from polarjax.engine.optim import OptimConfig, make_optimizer
from polarjax.engine.state import TrainState, to_host
from polarjax.engine.step import make_train_step
from polarjax.interop.visioncore_config import module_kwargs
from polarjax.models.build import make_module
from polarjax.models.constants import names_of
from polarjax.models.polar_v1 import PolarV1

CODE_WIDTH = 128
MEAN_COUNT = 0.2
RATE_HZ = 240.0
PIXELS_PER_DEGREE = 37.5


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a model and its frames of side x side pixels."""

    n_levels: int
    n_pairs: int
    kernel_size: int
    n_units: int
    side: int


@dataclasses.dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
      twin: the model in PyTorch that it is compared with: 'relaxed', 'behavior_only', 'minimal' (the reference's) or
        'default' (that of configs/polar.py); on windows, whatever the row is on.
      options: of our model, beside those of the twin.
      sizes: of both.
      batch: examples in a batch, on both sides.
      burn_in, predicted: frames of an example on our side; the twin has windows of `window` frames.
      sessions: each with as many units; on our side alone.
      micro_batches: of our side, and at least one a device.
    """

    name: str
    twin: str
    options: dict[str, Any]
    sizes: Sizes
    batch: int
    burn_in: int
    predicted: int
    window: int = 25
    sessions: int = 1
    micro_batches: int = 0

    @property
    def frames(self) -> int:
        """T of our side."""
        return self.burn_in + self.predicted


FULL, SHIPPED = Sizes(4, 64, 15, 100, 51), Sizes(4, 16, 7, 100, 51)
SMALL = Sizes(2, 4, 5, 6, 20)
# as in configs/polar.py: few examples at a time stay in the caches
MICRO_BATCHES = 8
CASES = {
    case.name: dataclasses.replace(case, micro_batches=MICRO_BATCHES)
    for case in (
        Case("relaxed", "relaxed", {}, FULL, 8, 24, 1),
        Case("behavior_only", "behavior_only", {}, FULL, 16, 24, 1),
        Case("minimal", "minimal", {}, FULL, 16, 24, 1),
        Case("behavior_only_16_pairs", "behavior_only", {}, SHIPPED, 16, 24, 1),
        Case("minimal_16_pairs", "minimal", {}, SHIPPED, 16, 24, 1),
        Case("default", "default", {}, FULL, 8, 24, 1),
        Case("segments_separable", "relaxed", {"filters": "separable"}, FULL, 8, 24, 96),
        Case("segments_dense", "relaxed", {"filters": "dense"}, FULL, 8, 24, 96),
    )
}
# The reference's files: relaxation rates, 1/s, and decays of the averages, a frame.
CONSTANTS = {
    "relaxed": (5.0, 20.0, 0.80, 0.90),
    "behavior_only": (10.0, 40.0, 0.74, 0.95),
    "minimal": (10.0, 40.0, 0.74, 0.95),
}


def small(case: Case) -> Case:
    """Returns the same row at a size that takes seconds: it shows that the command works, not how fast anything is."""
    frames = {"burn_in": 4, "predicted": min(case.predicted, 3), "window": 5}
    return dataclasses.replace(case, sizes=SMALL, batch=2 * jax.device_count(), micro_batches=0, **frames)


def reference_config(twin: str, sizes: Sizes) -> dict[str, Any]:
    """Returns what the reference's file of a model says, with other sizes."""
    fixation, saccade, fast, slow = CONSTANTS[twin]
    behaves = twin != "minimal"
    filters = {"n_pyramid_levels": sizes.n_levels, "n_pairs": sizes.n_pairs, "kernel_size": sizes.kernel_size}
    constants = {"lambda_fix": fixation, "lambda_sac": saccade, "alpha_fast": fast, "alpha_slow": slow}
    modulator = {"type": "polar", "params": {"beh_dim": CODE_WIDTH, "dt": 1 / RATE_HZ}}
    return {
        "convnet": {"type": "polar", "params": {**filters, "in_channels": 1}},
        "modulator": modulator if behaves else {"type": "none"},
        "recurrent": {"type": "polar", "params": {"dt": 1 / RATE_HZ, "use_behavior": behaves, **constants}},
        "readout": {"type": "polar", "params": {"n_units": sizes.n_units}},
    }


def model_kwargs(case: Case) -> dict[str, Any]:
    """Returns config.model.kwargs of our side: the reference's options in its windows, else ours."""
    sizes = {name: getattr(case.sizes, name) for name in ("n_levels", "n_pairs", "kernel_size")}
    if case.predicted == 1 and case.twin != "default":
        kwargs = module_kwargs(reference_config(case.twin, case.sizes))
        return {name: kwargs[name] for name in kwargs if name not in ("dt", "pixels_per_degree")}
    return {**polar.get_config().model.kwargs.to_dict(), **sizes, **case.options}


def make_info(sizes: Sizes, n_sessions: int = 1) -> DataInfo:
    """Returns sessions of units in the middle of the frame."""
    n = sizes.n_units
    units, place = tuple(map(str, range(n))), ((0.0, 0.0),) * n
    sessions = tuple(
        SessionInfo(f"noise-{number}", "", units, (MEAN_COUNT,) * n, place, "", "")
        for number in range(n_sessions)
    )
    return DataInfo(sessions, RATE_HZ, PIXELS_PER_DEGREE, (sizes.side, sizes.side, 1))


def make_system(case: Case) -> tuple[Any, System]:
    """Returns the config and the system of our side."""
    config = polar.get_config()
    config.model.kwargs = model_kwargs(case)
    config.optim.update(
        warmup_steps=0, schedule="constant", micro_batches=max(case.micro_batches, jax.device_count())
    )
    info = make_info(case.sizes, case.sessions)
    with config.ignore_type():
        for name in set(polar.CONSTANTS) - set(names_of(make_module(config, info))):
            config.optim.groups[name] = None
    return config, systems.build(config, info)


def make_model(case: Case) -> PolarV1:
    """Returns the module of our side."""
    config, _ = make_system(case)
    model: Any = make_module(config, make_info(case.sizes, case.sessions))
    return model


def make_batch(case: Case, frames: int, predicted: int) -> Batch:
    """Returns noise, a gaze that drifts, and counts of `MEAN_COUNT` spikes a bin."""
    random = np.random.default_rng(0)
    side, n_units = case.sizes.side, case.sizes.n_units
    arrays: list[Any] = [
        random.uniform(-0.5, 0.5, (case.batch, frames, side, side, 1)),
        random.normal(0, 0.02, (case.batch, frames, 2)).cumsum(1),
        random.poisson(MEAN_COUNT, (case.batch, predicted, n_units)),
        np.ones((case.batch, predicted, n_units)),
    ]
    return Batch(*(array.astype(np.float32) for array in arrays))


def initial_variables(case: Case, seed: int = 0) -> PyTree:
    """Returns parameters and statistics as training begins, moved off the zeros that would hide a wrong gradient."""
    _, system = make_system(case)
    batch = make_batch(case, case.frames, case.predicted)
    first = Batch(*(leaf[: max(2, case.sessions)] for leaf in batch))
    variables = jax.device_get(jax.jit(system.init)(jax.random.key(seed), first))
    random = np.random.default_rng(seed)

    def move(leaf: np.ndarray) -> np.ndarray:
        return (leaf + 0.02 * random.standard_normal(leaf.shape)).astype(leaf.dtype)

    return {**variables, "params": jax.tree.map(move, variables["params"])}


class OurStep(NamedTuple):
    """Our side of a row.

    Attributes:
      run: does one train step and waits for it; returns its scalars.
      compiled: the program of all devices.
    """

    run: Callable[[], dict[str, Any]]
    compiled: Any


def compile_step(case: Case, variables: PyTree) -> OurStep:
    """Compiles the engine's own train step: loss, gradient, clipping, AdamW, over all devices."""
    config, system = make_system(case)
    optim = OptimConfig.read(config.optim, config.train.num_steps)
    batch, mesh = make_batch(case, case.frames, case.predicted), sharding.make_mesh(optim.micro_batches)
    shares = {"batch_size": case.batch, "micro_batches": optim.micro_batches}
    sharding.check_sharing(**shares, sessions=case.sessions)
    request = sharding.put_request(batch, mesh, **shares)
    optimizer = make_optimizer(optim, system.param_group, variables["params"], config.train.num_steps)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables["params"])
    kept = {name: value for name, value in variables.items() if name != "params"}
    rng = jax.random.key_data(jax.random.key(0))
    state = TrainState(np.zeros((), np.int32), params, None, kept, optimizer.init(params), rng)
    state = sharding.put_replicated(to_host(state), mesh)
    step = make_train_step(system, optimizer, lambda _, rows: rows, mesh, deterministic=optim.deterministic)
    compiled = step.lower(state, (), request).compile()
    held = {"state": state}

    def run() -> dict[str, Any]:
        held["state"], scalars = jax.block_until_ready(compiled(held["state"], (), request))
        return scalars

    return OurStep(run, compiled)


def loss_and_gradients(case: Case, variables: PyTree, batch: Batch) -> tuple[float, PyTree]:
    """Returns loss and gradients of our side in double precision."""
    with jax.enable_x64(True):
        variables, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (variables, batch))
        _, system = make_system(case)
        kept = {name: value for name, value in variables.items() if name != "params"}
        rng = jax.random.key(0)
        state = TrainState(
            jnp.zeros((), jnp.int32), variables["params"], None, kept, (), jax.random.key_data(rng)
        )

        def loss(params):
            return system.loss(params, state, batch, rng).loss

        value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
        return float(value), jax.device_get(gradients)


def gradient_norm(gradients: PyTree) -> float:
    """Returns the global norm."""
    return math.sqrt(
        sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in jax.tree.leaves(gradients))
    )
