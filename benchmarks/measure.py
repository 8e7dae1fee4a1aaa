"""What the benchmarks share: flags, one environment for all sides, times in turn, table, JSON."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from polarjax.core import ConfigError, PolarjaxError
from polarjax.engine.cpu_flags import add_cpu_flags

# glibc gives large blocks back to the system and takes them again, page by page, in every step. MALLOC_ARENA_MAX is not
# among these: with one arena, devices that multiply matrices wait for each other's lock, for a third of a step.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
# OpenMP's threads wait for each other in a loop; where others want the cores, PyTorch then takes ten times as long.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
# Steps that are not timed: a process takes its memory in the first, and beside another side's in the second again.
WARM_UP = 2


class Times(NamedTuple):
    """Seconds of every call: on the clock, and of all cores together."""

    wall: list[float]
    cpu: list[float]


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs a benchmark as a program: an error that a user can mend is one line and an exit code."""
    try:
        code = main(sys.argv[1:])
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


def whole_number(flags: Mapping[str, str], name: str, default: int, *, least: int = 1) -> int:
    """Reads a flag that counts.

    Raises:
      ConfigError: it is no whole number, or below `least`.
    """
    text = flags.get(name, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"--{name} is {text!r}; expected a whole number of at least {least}")
    return int(text)


def chosen(flags: Mapping[str, str], name: str, allowed: Sequence[str]) -> list[str]:
    """Reads a flag that names some of `allowed`, separated by commas; all of them where it is not given.

    Raises:
      ConfigError: a name is not allowed.
    """
    names = [part.strip() for part in flags[name].split(",")] if name in flags else list(allowed)
    for part in names:
        if part not in allowed:
            raise ConfigError(f"--{name} names {part!r}; allowed are {', '.join(allowed)}")
    return names


def fair_environment(cores_as_devices: bool) -> dict[str, str]:
    """Returns the environment that all sides of a comparison run in.

    Args:
      cores_as_devices: whether JAX sees as many CPU devices as there are cores, which is how it uses all of them.
    """
    environment = {**WAITING, **os.environ, **ALLOCATOR}
    flags = environment.get("XLA_FLAGS", "")
    if cores_as_devices and "xla_force_host_platform_device_count" not in flags:
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={os.cpu_count()}".strip()
    add_cpu_flags(environment)
    return environment


def restart_in(environment: dict[str, str]) -> None:
    """Starts this program again in another environment, unless it is the one it has; the allocator reads it once."""
    if environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int, *, untimed: int = 0) -> dict[str, Times]:
    """Calls functions one after the other, again and again, so that all of them meet the same disturbances.

    Args:
      untimed: calls of a function before each that is timed. The first after another function finds neither caches nor
        memory as it left them, which steps of a run do.
    """
    times = {name: Times([], []) for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            for _ in range(untimed):
                function()
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Returns the median over rounds of the ratio within a round."""
    return statistics.median(x / y for x, y in zip(above, below, strict=True))


def machine() -> dict[str, Any]:
    """Returns what a time depends on, beside the code."""
    import jax  # a benchmark may have to restart before JAX starts

    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def print_numbers(numbers: Mapping[str, Any]) -> None:
    """Prints one number a line."""
    for name, value in numbers.items():
        print(f"{name:<28}{_text(value):>14}")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Prints some columns of rows; a number that a row does not have is a dash."""
    lines = [list(columns), *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells[1:]]), flush=True)


def write_json(flags: Mapping[str, str], values: Any) -> None:
    """Writes to the file of --json, where it is given."""
    if "json" in flags:
        pathlib.Path(flags["json"]).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 5
    return f"{value:,.{digits}f}"
