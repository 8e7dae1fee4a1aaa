"""Times train steps: of the comparison with PyTorch, or of one config alone.

python -m benchmarks.step [--rows relaxed,default] [--steps 5] [--compile] [--json FILE] [--plot FILE.png]
python -m benchmarks.step --config configs/polar_relaxed.py:quick [--steps 20] [--json FILE]

Without --config, every row is a model that both sides have with the same weights: its train step in PyTorch and ours,
one after the other, again and again. With --config, the train step of that config on its own data.
"""

from __future__ import annotations

import functools
import pathlib
import resource
import statistics
import time
from typing import Any

import jax

import polarjax.data
from benchmarks import cases, comparison, measure
from benchmarks.prepared import prepare
from polarjax.core import PolarjaxError
from polarjax.engine import config
from polarjax.engine.flags import parse_flags
from polarjax.engine.memory import needed_bytes

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
    asked = {name: name in flags for name in SWITCHES}
    rows = comparison.compare(
        names,
        steps,
        compiles=asked["compile"],
        small=asked["small"],
        keep=functools.partial(measure.write_json, flags),
    )
    print()
    measure.print_table(rows, comparison.COLUMNS)
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
        train_step, state, resident, send, _ = prepare(settings, data)
        begin = time.perf_counter()
        compiled = train_step.lower(state, resident, send(0)).compile()
        compile_s = time.perf_counter() - begin
        data_ms, step_ms = [], []
        for step in range(measure.WARM_UP + steps):
            begin = time.perf_counter()
            request = jax.block_until_ready(send(step))
            sent = time.perf_counter()
            state, scalars = jax.block_until_ready(compiled(state, resident, request))
            data_ms.append(1e3 * (sent - begin))
            step_ms.append(1e3 * (time.perf_counter() - sent))
        if not scalars["finite"]:
            raise PolarjaxError("the last step's loss or gradient is not finite; its time means nothing")
        median = statistics.median(step_ms[measure.WARM_UP :])
        return {
            **measure.machine(),
            "devices": state.step.sharding.num_devices,
            "steps": steps,
            "step_ms": median,
            "step_ms_longest": max(step_ms[measure.WARM_UP :]),
            "data_ms": statistics.median(data_ms[measure.WARM_UP :]),
            "predicted_bins_per_s": 1e3 * settings.data.batch_size * settings.data.predicted / median,
            "compile_s": compile_s,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "step_memory_mb": (needed_bytes(compiled) or 0) / 2**20,
        }
    finally:
        data.close()


if __name__ == "__main__":
    measure.restart_in(measure.fair_environment(cores_as_devices=True))
    measure.run(main)
