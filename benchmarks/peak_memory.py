"""How much memory two train steps of one side of a row add, measured in a process of their own.

python -m benchmarks.peak_memory relaxed ours|torch [small]

Prints one object: baseline_mb, what the process holds before the first step, with model, batch and compiled program;
peak_mb, the most that it held during two steps. Linux tells.
"""

from __future__ import annotations

import ctypes
import gc
import json
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks import measure

SIDES = ("ours", "torch")
STATUS, RESET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
STEPS = 2


def measure_child(name: str, side: str, *, small: bool, environment: dict[str, str]) -> dict[str, float]:
    """Runs this file in a process of its own and returns what it prints."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", name, side, *(["small"] if small else [])]
    folder = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    """Builds one side of a row, takes the baseline, does two steps, prints."""
    name, side, *rest = arguments
    step = _build(name, side, small="small" in rest)
    baseline = settle()
    for _ in range(STEPS):
        step()
    print(json.dumps({"baseline_mb": baseline, "peak_mb": peak()}))


def settle() -> float:
    """Gives free memory back, forgets the peak so far (compiling takes more than a step) and returns MB held."""
    release()
    RESET.write_text("5")
    return _status("VmRSS")


def release() -> None:
    """Gives memory that is free back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def peak() -> float:
    """Returns the most MB held since `settle`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _build(name: str, side: str, *, small: bool) -> Any:
    from benchmarks import cases
    from polarjax.engine.compilation import enable_compilation_cache

    enable_compilation_cache()
    case = cases.small(cases.CASES[name]) if small else cases.CASES[name]
    if side == "ours":
        return cases.compile_step(case, cases.initial_variables(case)).run
    from benchmarks import torch_steps

    return torch_steps.TorchStep(torch_steps.Twin(case), case).run


if __name__ == "__main__":
    measure.run(main)
