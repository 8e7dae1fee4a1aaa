"""Whether training ends with the same bits on any number of devices, and what that costs.

python -m benchmarks.devices [--config configs/polar.py:quick] [--devices 1,2,4] [--steps 2] [--json FILE]

CPU devices are forced in processes of their own. Each does some steps and one evaluation, with deterministic sums and
with plain ones. The last state and the sums of the evaluation are compared, number by number, with those of the first
process with deterministic sums. Where deterministic ones have other bits, the command ends with an error.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import polarjax.data
from benchmarks import measure
from benchmarks.prepared import prepare
from benchmarks.scaling import environment_with
from polarjax.core import ConfigError, NumericError
from polarjax.engine import config
from polarjax.engine.compilation import enable_compilation_cache
from polarjax.engine.flags import parse_flags
from polarjax.engine.state import flatten, to_host

CONFIG = "configs/polar.py:quick"
DEVICES = (1, 2, 4)
SUMS = ("deterministic", "plain")
TIMES = "step_ms"
COLUMNS = ("devices", "sums", "arrays", "other_bits", "largest_difference", "step_ms")
FLAGS = {
    "config": f"config file, path.py or path.py:argument (default: {CONFIG})",
    "devices": f"numbers of CPU devices, by commas; they divide the micro-batches (default: {DEVICES})",
    "steps": "steps before the comparison; the first is not timed (default: 2)",
    "end": "file for the end of a run on the devices there are: this is what the processes do",
    "json": "file for the numbers",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, runs and compares, prints the table and writes the JSON.

    Raises:
      NumericError: deterministic sums have other bits on another number of devices.
    """
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
    steps = measure.whole_number(flags, "steps", 2, least=2)
    name = flags.get("config", CONFIG)
    if "end" in flags:
        enable_compilation_cache()
        arrays: dict[str, Any] = dict(end_of_run(config.load(name, overrides), steps))
        np.savez(flags["end"], **arrays)
        return
    ends: dict[tuple[int, str], dict[str, np.ndarray]] = {}
    for count in _read_devices(flags):
        arrays = _in_process_of_its_own(count, arguments)
        for sums in SUMS:
            there = f"{sums}/"
            ends[count, sums] = {
                key.removeprefix(there): leaf for key, leaf in arrays.items() if key.startswith(there)
            }
        print(f"{count} devices: done", flush=True)
    rows: list[dict[str, Any]] = [
        {"config": name, **overrides, "steps": steps, **row} for row in compare(ends)
    ]
    measure.print_table(rows, COLUMNS)
    measure.write_json(flags, rows)
    if failed := [row for row in rows if row["sums"] == SUMS[0] and row["other_bits"]]:
        others = ", ".join(failed[0]["names"][:3])
        raise NumericError(
            f"{name} ends with other bits on {failed[0]['devices']} devices in {others}; "
            "docs/scale.md tells what has made bits differ before"
        )


def end_of_run(settings: Any, steps: int) -> dict[str, np.ndarray]:
    """Trains and evaluates on the devices there are.

    Returns:
      {sums/name: array} of state and evaluation, and the median milliseconds of a step, by the kind of sums.
    """
    data = polarjax.data.build(settings.data)
    arrays = {}
    try:
        for sums in SUMS:
            settings.optim.deterministic = sums == SUMS[0]
            prepared = prepare(settings, data)
            state, runs = prepared.state, []

            def step(number: int, prepared: Any = prepared) -> None:
                nonlocal state
                state, _ = jax.block_until_ready(
                    prepared.step(state, prepared.resident, prepared.send(number))
                )

            for number in range(steps):
                runs += measure.in_turn({"step": lambda number=number: step(number)}, 1)["step"].wall
            sums_of_batch = prepared.evaluate(state, prepared.resident, prepared.send(steps))
            end = flatten(to_host({"state": state, "evaluation": sums_of_batch}))
            arrays |= {f"{sums}/{path}": leaf for path, leaf in end.items()}
            arrays[f"{sums}/{TIMES}"] = np.float64(1e3 * statistics.median(runs[1:]))
    finally:
        data.close()
    return arrays


def compare(ends: Mapping[tuple[int, str], Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Compares every end with the first.

    Returns:
      One object an end: how many arrays it has, how many of them (`names`) have other bits, and the largest difference
      over the largest number of its array.
    """
    first = next(iter(ends.values()))
    rows = []
    for (count, sums), end in ends.items():
        names = [name for name in first if name != TIMES and end[name].tobytes() != first[name].tobytes()]
        rows.append(
            {
                "devices": count,
                "sums": sums,
                "arrays": len(first) - 1,
                "other_bits": len(names),
                "largest_difference": max(
                    (_difference(end[name], first[name]) for name in names), default=0.0
                ),
                TIMES: float(end[TIMES]),
                "names": names,
            }
        )
    return rows


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    left, right = (np.asarray(part, np.float64) for part in (left, right))
    return float(np.abs(left - right).max() / max(np.abs(right).max(), np.finfo(np.float32).tiny))


def _read_devices(flags: Mapping[str, str]) -> list[int]:
    parts = flags.get("devices", ",".join(map(str, DEVICES))).split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--devices is {flags['devices']!r}; expected whole numbers by commas, as in 1,2,4")
    return [int(part) for part in parts]


def _in_process_of_its_own(count: int, arguments: Sequence[str]) -> dict[str, np.ndarray]:
    folder = pathlib.Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="polarjax-devices-") as place:
        file = pathlib.Path(place, "end.npz")
        command = [sys.executable, "-m", "benchmarks.devices", *arguments, "--end", str(file)]
        done = subprocess.run(command, env=environment_with(count), cwd=folder, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)  # it has said why
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


if __name__ == "__main__":
    measure.restart_in(measure.fair_environment(cores_as_devices=False))
    measure.run(main)
