"""How the time of a train step grows with what it works on.

python -m benchmarks.scaling [--axes frames,pairs] [--steps 10] [--json FILE] [--plot FILE.png]

Each axis starts from one small model; the steps of its points are done in turn. The exponent p of time ~ n^p is the
slope of the straight line through the logarithms of the three largest points, where what does not grow matters least.
Devices are CPU devices forced in processes of their own, on the same micro-batches.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import cases, measure
from polarjax.core import ConfigError
from polarjax.engine.compilation import enable_compilation_cache
from polarjax.engine.flags import parse_flags

BASE = cases.Case("scaling", "default", {"code_width": 32}, cases.Sizes(2, 16, 5, 32, 16), 8, 4, 12)
AXES = {
    "frames": (16, 32, 64, 128),
    "batch": (8, 16, 32, 64),
    "pairs": (16, 32, 64, 128),
    "units": (32, 128, 512, 2048),
    "sessions": (1, 2, 4, 8),
    "devices": (1, 2),
}
LARGEST = 3
DEVICES_FLAG = "--xla_force_host_platform_device_count"
COLUMNS = ("axis", "value", "step_ms", "relative", "exponent")
FLAGS = {
    "axes": f"what grows, of {', '.join(AXES)} (default: all)",
    "steps": "steps of each point that are timed, after 2 that are not (default: 10)",
    "point": "AXIS=VALUE: measures this point alone and prints its seconds",
    "json": "file for the numbers",
    "plot": "file for a figure",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, measures, prints the table and writes the JSON."""
    flags, _ = parse_flags(arguments, FLAGS, __doc__ or "")
    steps = measure.whole_number(flags, "steps", 10)
    enable_compilation_cache()
    if "point" in flags:
        print(json.dumps(measure_points([_read_point(flags["point"])], steps)[0]))
        return
    rows: list[dict[str, Any]] = []
    for axis in measure.chosen(flags, "axes", tuple(AXES)):
        rows += measure_axis(axis, AXES[axis], steps)
        print(f"{axis}: exponent {rows[-1]['exponent']:.2f}", flush=True)
    measure.print_table(rows, COLUMNS)
    measure.write_json(flags, rows)
    if "plot" in flags:
        plot(rows, pathlib.Path(flags["plot"]))


def measure_axis(axis: str, values: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Measures the points of an axis.

    Returns:
      One object a point: its time, its time over that of the first, and the exponent of the axis.
    """
    if axis == "devices":
        seconds = [_in_process_of_its_own(axis, value, steps) for value in values]
    else:
        seconds = measure_points([(axis, value) for value in values], steps)
    slope = exponent(values, seconds)
    return [
        {
            "axis": axis,
            "value": value,
            "step_ms": 1e3 * step,
            "relative": step / seconds[0],
            "exponent": slope,
            "steps": steps,
            "cores": os.cpu_count(),
        }
        for value, step in zip(values, seconds, strict=True)
    ]


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns p of time ~ n^p: the slope of log time over log n, least squares on the largest three points."""
    x, y = (np.log(np.asarray(part[-LARGEST:], float)) for part in (values, seconds))
    return float(np.polyfit(x, y, 1)[0])


def measure_points(points: Sequence[tuple[str, int]], steps: int) -> list[float]:
    """Returns the median seconds of a step at each point."""
    runs = {}
    for axis, value in points:
        case = point_case(axis, value)
        runs[f"{axis}={value}"] = cases.compile_step(case, cases.initial_variables(case)).run
    measure.in_turn(runs, measure.WARM_UP)
    return [statistics.median(times.wall) for times in measure.in_turn(runs, steps).values()]


def point_case(axis: str, value: int, base: cases.Case = BASE) -> cases.Case:
    """Returns the base model with one size changed; of frames, the burn-in stays."""
    if axis in ("pairs", "units"):
        return dataclasses.replace(base, sizes=dataclasses.replace(base.sizes, **{f"n_{axis}": value}))
    if axis == "frames":
        return dataclasses.replace(base, predicted=value - base.burn_in)
    if axis == "devices":
        return dataclasses.replace(base, micro_batches=max(AXES["devices"]))
    changed: dict[str, Any] = {axis: value}
    return dataclasses.replace(base, **changed)


def environment_with(devices: int) -> dict[str, str]:
    """Returns this environment with a number of CPU devices."""
    others = re.sub(rf"{DEVICES_FLAG}=\d+", "", os.environ.get("XLA_FLAGS", ""))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{others} {DEVICES_FLAG}={devices}".strip()}


def _in_process_of_its_own(axis: str, value: int, steps: int) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.scaling",
        "--point",
        f"{axis}={value}",
        "--steps",
        str(steps),
    ]
    folder = pathlib.Path(__file__).resolve().parents[1]
    environment = environment_with(value)
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _read_point(text: str) -> tuple[str, int]:
    axis, _, value = text.partition("=")
    if axis not in AXES or not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"--point is {text!r}; expected AXIS=VALUE with an axis of {', '.join(AXES)}")
    return axis, int(value)


def plot(rows: list[dict[str, Any]], file: pathlib.Path) -> None:
    """Draws time over size, each axis relative to its first point."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    for axis in dict.fromkeys(row["axis"] for row in rows):
        points = [row for row in rows if row["axis"] == axis]
        sizes = [row["value"] / points[0]["value"] for row in points]
        label = f"{axis}, exponent {points[0]['exponent']:.2f}"
        axes.plot(sizes, [row["relative"] for row in points], "o-", label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="size over the smallest", ylabel="time over that of the smallest"
    )
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    measure.restart_in(measure.fair_environment(cores_as_devices=False))
    measure.run(main)
