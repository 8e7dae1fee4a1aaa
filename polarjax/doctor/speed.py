"""What the devices compute, and how fast: a matrix product, and train steps of a very small Polar-V1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from polarjax import systems
from polarjax.core import Batch, DataInfo, NumericError, SessionInfo
from polarjax.doctor.findings import OK, Finding, failure
from polarjax.engine import sharding
from polarjax.engine.optim import OptimConfig, make_optimizer
from polarjax.engine.state import initial_state
from polarjax.engine.step import make_train_step
from polarjax.systems import polar

SIZE, REPEATS, STEPS, TOLERANCE = 1024, 5, 5, 1e-3
WINDOW, FRAMES, PREDICTED, UNITS = 16, 12, 6, 4
REMEDY = "update the driver and JAX, and repeat with JAX_PLATFORMS=cpu: where that is right, the device is at fault"


def check_product() -> Iterator[Finding]:
    """Times a compiled matrix product and compares it with NumPy's."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    device_left, device_right = jnp.asarray(left), jnp.asarray(right)
    result = np.asarray(product(device_left, device_right))
    seconds = min(_seconds(lambda: product(device_left, device_right)) for _ in range(REPEATS))
    error = float(np.abs(result - left @ right).max() / np.abs(result).max())
    text = f"{SIZE} x {SIZE} float32 in {1e3 * seconds:.2f} ms, {2e-9 * SIZE**3 / seconds:,.0f} GFLOP/s"
    if error <= TOLERANCE:  # False for NaN too
        yield Finding("product", OK, text)
    else:
        yield failure("product", NumericError, f"{text}, but it differs from NumPy's by {error:.2g}", REMEDY)


def check_train_step() -> Iterator[Finding]:
    """Compiles and times the real train step on noise."""
    step, state, request = _prepare(synthetic_batch())
    begin = time.perf_counter()
    compiled = step.lower(state, (), request).compile()
    compile_s = time.perf_counter() - begin
    losses, seconds = [], []
    for _ in range(STEPS):
        begin = time.perf_counter()
        state, scalars = jax.block_until_ready(compiled(state, (), request))
        seconds.append(time.perf_counter() - begin)
        losses.append(float(scalars["train/loss"]))
        if not scalars["finite"]:
            message = f"step {len(losses)} of a very small Polar-V1 is not finite, its loss is {losses[-1]:g}"
            yield failure("train step", NumericError, message, REMEDY)
            return
    text = f"a very small Polar-V1: {compile_s:.1f} s to compile, {1e3 * statistics.median(seconds):.1f} ms a step"
    yield Finding("train step", OK, f"{text}, loss {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps")


def synthetic_batch() -> Batch:
    """Returns noise of the shapes of training, the same at every call, rows for all devices."""
    random = np.random.default_rng(0)
    rows = jax.device_count() * max(1, 8 // jax.device_count())
    stimulus = random.uniform(-0.5, 0.5, (rows, FRAMES, WINDOW, WINDOW, 1)).astype(np.float32)
    gaze = random.normal(0, 0.02, (rows, FRAMES, 2)).cumsum(1).astype(np.float32)
    spikes = random.poisson(0.5, (rows, PREDICTED, UNITS)).astype(np.float32)
    arrays: list[Any] = [stimulus, gaze, spikes, np.ones_like(spikes)]
    return Batch(*arrays)


def _prepare(batch: Batch) -> tuple[jax.stages.Wrapped, Any, Any]:
    """Returns the jitted step, the first state and the request on the devices, as the loop makes them."""
    kwargs = {"n_levels": 1, "n_pairs": 2, "kernel_size": 3, "code_width": 4, "summaries": ("last", "fast")}
    group = {"learning_rate": 1e-2, "weight_decay": 0.0}
    config = ml_collections.ConfigDict(
        {
            "system": "polar",
            "model": {"name": "polar_v1", "kwargs": kwargs},
            "loss": polar.poisson_loss(),
            "train": {"num_steps": STEPS},
            "optim": {
                "groups": dict.fromkeys(("core", "lambda_fix", "lambda_sac", "alpha_fast", "readout"), group),
                "bounds": {},
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-8,
                "clip_norm": 5.0,
                "warmup_steps": 0,
                "schedule": "constant",
                "micro_batches": jax.device_count(),
                "deterministic": True,
            },
        }
    )
    units = tuple(f"unit-{index}" for index in range(UNITS))
    session = SessionInfo("noise", "", units, (0.5,) * UNITS, ((0.0, 0.0),) * UNITS, "", "")
    system = systems.build(config, DataInfo((session,), 120.0, 10.0, (WINDOW, WINDOW, 1)))
    optim = OptimConfig.read(config.optim, STEPS)
    mesh = sharding.make_mesh(optim.micro_batches)
    request = sharding.put_request(
        batch, mesh, batch_size=len(batch.stimulus), micro_batches=optim.micro_batches
    )
    params = jax.eval_shape(lambda rows: system.init(jax.random.key(0), rows)["params"], batch)
    optimizer = make_optimizer(optim, system.param_group, params, STEPS)

    def start(rows):
        return initial_state(system, optimizer.init, rows, 0)

    # Computed once, so that compiling it well would take longer than it saves.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    state = jax.jit(start, out_shardings=sharding.replicated(mesh), compiler_options=options)(batch)
    step = make_train_step(system, optimizer, lambda resident, rows: rows, mesh, deterministic=True)
    return step, state, request


def _seconds(compute) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(compute())
    return time.perf_counter() - begin
