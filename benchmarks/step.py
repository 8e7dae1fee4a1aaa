"""Times the compiled train step of a config.

python -m benchmarks.step --config configs/polar_relaxed.py:quick [--steps 20] [--json FILE]
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import time
from typing import Any

import jax

import polarjax.data
import polarjax.systems
from polarjax.core import ConfigError, PolarjaxError
from polarjax.engine import config, sharding
from polarjax.engine.flags import parse_flags
from polarjax.engine.optim import make_optimizer
from polarjax.engine.state import to_host
from polarjax.engine.step import make_initialize, make_train_step

WARM_UP = 2
FLAGS = {
    "config": "config file, path.py or path.py:argument",
    "steps": "number of steps that are timed, after 2 that are not (default: 20)",
    "json": "file for the numbers",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, measures, prints the table and writes the JSON."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
    settings = config.load(flags.get("config"), overrides)
    measured = {
        "config": flags["config"],
        **overrides,
        **measure_step(settings, _count(flags.get("steps", "20"))),
    }
    print(
        "\n".join(
            f"{name:<22}{value:>14,.1f}" if isinstance(value, float) else f"{name:<22}{value!s:>14}"
            for name, value in measured.items()
        )
    )
    if "json" in flags:
        pathlib.Path(flags["json"]).write_text(json.dumps(measured, indent=1) + "\n")


def measure_step(settings: Any, steps: int) -> dict[str, Any]:
    """Builds data, system and optimizer as a run does, compiles the step and times it.

    Returns:
      Times in ms and s, throughput in steps and in predicted bins (batch size x predicted frames) per second, memory
      in MB; `data_ms` is the median time to make a request and send it to the device, outside the step's time.
    """
    data = polarjax.data.build(settings.data)
    try:
        train_step, state, resident, send = _prepare(settings, data)
        begin = time.perf_counter()
        compiled = train_step.lower(state, resident, send(0)).compile()
        compile_s = time.perf_counter() - begin
        data_ms, step_ms = [], []
        for step in range(WARM_UP + steps):
            begin = time.perf_counter()
            request = jax.block_until_ready(send(step))
            sent = time.perf_counter()
            state, scalars = jax.block_until_ready(compiled(state, resident, request))
            data_ms.append(1e3 * (sent - begin))
            step_ms.append(1e3 * (time.perf_counter() - sent))
        if not scalars["finite"]:
            raise PolarjaxError("the last step's loss or gradient is not finite; its time means nothing")
        median = statistics.median(step_ms[WARM_UP:])
        return {
            "device": jax.devices()[0].device_kind,
            "devices": state.step.sharding.num_devices,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "python": platform.python_version(),
            "steps": steps,
            "step_ms": median,
            "step_ms_longest": max(step_ms[WARM_UP:]),
            "data_ms": statistics.median(data_ms[WARM_UP:]),
            "predicted_bins_per_s": 1e3 * settings.data.batch_size * settings.data.predicted / median,
            "compile_s": compile_s,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "step_memory_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        }
    finally:
        data.close()


def _prepare(settings: Any, data: Any) -> tuple:
    """Returns the jitted step, the first state, the resident arrays and step -> request on the devices."""
    train, optim = config.validate(settings)
    system = polarjax.systems.build(settings, data.info)
    mesh = sharding.make_mesh(optim.micro_batches)
    resident = sharding.put_replicated(data.resident, mesh)
    shares = {"batch_size": settings.data.batch_size, "micro_batches": optim.micro_batches}
    sharding.check_sharing(**shares, sessions=len(data.info.sessions))

    def send(step):
        return sharding.put_request(data.train(step), mesh, **shares)

    def init(resident, rows):
        return system.init(jax.random.key(0), data.fetch(resident, rows))["params"]

    rows = sharding.first_rows(send(0), mesh, settings.data.batch_size)
    optimizer = make_optimizer(
        optim, system.param_group, jax.eval_shape(init, resident, rows), train.num_steps
    )
    initialize = make_initialize(system, optimizer, data.fetch, settings.seed)
    state = sharding.put_replicated(to_host(initialize(sharding.on_one_device(resident), rows)), mesh)
    step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=optim.deterministic)
    return step, state, resident, send


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"--steps is {text!r}; expected a whole number above 0")
    return int(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
