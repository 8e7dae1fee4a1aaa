"""How long the train step of a config takes to trace, to lower and to compile: at first, and from the cache on disk.

python -m benchmarks.compile [--configs configs/polar.py:quick,configs/polar.py] [--json FILE]

Every config is compiled in two processes of their own, the second of which finds the compiled program in the cache.
Quick forms do some steps, too, and count the programs that are compiled after the first: it must be none. Full ones,
made for accelerators, are compiled and not run.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax

import polarjax.data
from benchmarks import measure
from benchmarks.prepared import prepare
from polarjax.core import ConfigError, NumericError
from polarjax.engine import config
from polarjax.engine.compilation import ProgramCount
from polarjax.engine.flags import parse_flags
from polarjax.engine.memory import needed_bytes

CONFIGS = (
    *(f"configs/{name}.py:quick" for name in ("polar", "polar_relaxed", "polar_minimal", "polar_reference")),
    "configs/polar.py",
)
QUICK = ":quick"
STEPS_AFTER_THE_FIRST = 3
COLUMNS = (
    *("config", "trace_s", "lower_s", "compile_s", "cached_compile_s"),
    *("programs_after_step_1", "step_memory_mb"),
)
FLAGS = {
    "configs": f"config files, path.py or path.py:argument, separated by commas (default: {','.join(CONFIGS)})",
    "config": "measures this config alone, once, in this process, and prints one object",
    "json": "file for the numbers",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, measures, prints the table and writes the JSON."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
    if "config" in flags:
        settings = config.load(flags["config"], overrides)
        print(json.dumps(measure_compilation(settings, runs=flags["config"].endswith(QUICK))))
        return
    if overrides:
        raise ConfigError(f"--config.{next(iter(overrides))} needs --config: overrides are for one config")
    rows = [measure_config(name) for name in flags.get("configs", ",".join(CONFIGS)).split(",")]
    measure.print_table(rows, COLUMNS)
    measure.write_json(flags, rows)


def measure_config(name: str) -> dict[str, Any]:
    """Compiles a config with an empty cache and again with a full one.

    Raises:
      NumericError: something is compiled after the first step, so that every step may pay for it.
    """
    with tempfile.TemporaryDirectory(prefix="polarjax-compile-") as cache:
        cold, cached = (_in_process_of_its_own(name, cache) for _ in range(2))
    row = {"config": name, **cold, "cached_compile_s": cached["compile_s"]}
    if row["programs_after_step_1"]:
        raise NumericError(
            f"{name}: {row['programs_after_step_1']} programs were compiled after step 1; expected 0"
        )
    return row


def measure_compilation(settings: Any, *, runs: bool) -> dict[str, Any]:
    """Traces, lowers and compiles the train step of a config.

    Args:
      runs: whether to do steps, too, and to count what they compile.
    """
    data = polarjax.data.build(settings.data)
    try:
        prepared = prepare(settings, data, abstract=not runs)
        request = prepared.send(0)
        times = [time.perf_counter()]
        traced = prepared.step.trace(prepared.state, prepared.resident, request)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        compiled = lowered.compile()
        times.append(time.perf_counter())
        seconds = [after - before for before, after in zip(times, times[1:], strict=False)]
        return {
            **dict(zip(("trace_s", "lower_s", "compile_s"), seconds, strict=True)),
            "programs_after_step_1": _programs_after_the_first_step(prepared) if runs else None,
            "step_memory_mb": (needed_bytes(compiled) or 0) / 2**20,
            **measure.machine(),
        }
    finally:
        data.close()


def _programs_after_the_first_step(prepared: Any) -> int:
    """Does steps by the function itself, which compiles again wherever an argument's type changes."""
    state, _ = jax.block_until_ready(prepared.step(prepared.state, prepared.resident, prepared.send(0)))
    with ProgramCount() as programs:
        for step in range(1, 1 + STEPS_AFTER_THE_FIRST):
            state, _ = jax.block_until_ready(prepared.step(state, prepared.resident, prepared.send(step)))
        return programs.take()["time/compiled_programs"]


def _in_process_of_its_own(name: str, cache: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "benchmarks.compile", "--config", name]
    folder = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    measure.restart_in(measure.fair_environment(cores_as_devices=True))
    measure.run(main)
