"""Times train steps: of the comparison with PyTorch, or of one config alone.

python -m benchmarks.step [--rows relaxed,default] [--steps 5] [--compile] [--json FILE] [--plot FILE.png]
python -m benchmarks.step --config configs/polar_relaxed.py:quick [--steps 20] [--json FILE]

Without --config, every row is a model that both sides have with the same weights: its train step in PyTorch and ours,
one after the other, again and again. With --config, the train step of that config on its own data.
"""

from __future__ import annotations

import pathlib
import resource
import statistics
import sys
import time
from typing import Any

import jax

import polarjax.data
import polarjax.systems
from benchmarks import cases, comparison, measure
from polarjax.core import PolarjaxError
from polarjax.engine import config, sharding
from polarjax.engine.flags import parse_flags
from polarjax.engine.optim import make_optimizer
from polarjax.engine.state import to_host
from polarjax.engine.step import make_initialize, make_train_step

WARM_UP = 2
FLAGS = {
    "config": "config file, path.py or path.py:argument; without it PyTorch is compared with",
    "steps": "number of steps that are timed, after 2 that are not (default: 20); of a comparison on each side "
    "(default: 5)",
    "rows": f"rows of the comparison, of {', '.join(cases.CASES)} (default: all)",
    "compile": "time PyTorch's compiled form too; compiling takes minutes a row",
    "small": "the comparison at sizes of seconds, which shows that it works and not how fast anything is",
    "json": "file for the numbers",
    "plot": "file for a figure of the comparison",
}
SWITCHES = ("compile", "small")


def main(arguments: list[str]) -> None:
    """Reads the flags, measures, prints the table and writes the JSON."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "", switches=SWITCHES)
    if "config" in flags:
        settings = config.load(flags["config"], overrides)
        steps = measure.whole_number(flags, "steps", 20)
        measured = {"config": flags["config"], **overrides, **measure_step(settings, steps)}
        measure.print_numbers(measured)
        measure.write_json(flags, measured)
        return
    comparison.check_torch()
    names = measure.chosen(flags, "rows", tuple(cases.CASES))
    steps = measure.whole_number(flags, "steps", 5)
    rows = comparison.compare(names, steps, compiles="compile" in flags, small="small" in flags)
    print()
    measure.print_table(rows, comparison.COLUMNS)
    measure.write_json(flags, rows)
    if "plot" in flags:
        comparison.plot(rows, pathlib.Path(flags["plot"]))


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
            **measure.machine(),
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
    mesh = sharding.make_mesh()
    resident = sharding.put_replicated(data.resident, mesh)
    shares = {"batch_size": settings.data.batch_size, "micro_batches": optim.micro_batches}
    sharding.check_sharing(**shares, devices=mesh.size, sessions=len(data.info.sessions))

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


if __name__ == "__main__":
    if not any(argument.startswith("--config") for argument in sys.argv[1:]):
        measure.restart_in(measure.fair_environment(cores_as_devices=True))
    measure.run(main)
