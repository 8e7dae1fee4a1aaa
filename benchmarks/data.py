"""What batches cost: sessions on the device against sessions read from disk while the model trains.

python -m benchmarks.data [--config configs/polar_relaxed.py:quick] [--steps 10] [--rounds 9] [--json FILE]

Blocks of steps with each storage follow each other in turn, as in a run: a step is sent to the device while it works on
the one before, and reading is waited for only where the device has nothing to do. The first steps of a block are not
timed, so that what was read ahead while the other storage trained is used up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

import polarjax.data
from benchmarks import measure
from benchmarks.prepared import Prepared, prepare
from polarjax.data.streamed import STEPS_AHEAD
from polarjax.engine import config
from polarjax.engine.clock import Clock
from polarjax.engine.flags import parse_flags

CONFIG = "configs/polar_relaxed.py:quick"
COLUMNS = (
    *("storage", "step_ms", "cost_percent", "waiting_percent"),
    *("batches_per_s", "request_mb", "reads_per_s", "read_mb_per_s"),
)
FLAGS = {
    "config": f"config file, path.py or path.py:argument (default: {CONFIG})",
    "steps": "steps of a block that are timed (default: 10)",
    "rounds": "blocks of each storage (default: 9)",
    "json": "file for the numbers",
}


class Trained(NamedTuple):
    """A storage that trains.

    Attributes:
      data: its batches.
      block: number of steps -> seconds a step, and the share of time that the device waited for data.
    """

    data: Any
    block: Callable[[int], tuple[float, float]]


def main(arguments: list[str]) -> None:
    """Reads the flags, measures, prints the table and writes the JSON."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
    settings = config.load(flags.get("config", CONFIG), overrides)
    steps, rounds = measure.whole_number(flags, "steps", 10), measure.whole_number(flags, "rounds", 9)
    rows = [
        {"config": flags.get("config", CONFIG), **overrides, **row}
        for row in compare(settings, steps, rounds)
    ]
    measure.print_table(rows, COLUMNS)
    measure.write_json(flags, rows)


def compare(settings: Any, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Trains with every storage in turn.

    Returns:
      One object a storage; the cost is that of a step over one with sessions on the device, the median over rounds.
    """
    storages = {name: _start(settings, name) for name in polarjax.data.STORAGES}
    try:
        reading = {name: _read_alone(storage.data, steps) for name, storage in storages.items()}
        blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in storages}
        for _ in range(rounds):
            for name, storage in storages.items():
                blocks[name].append(storage.block(steps))
    finally:
        for storage in storages.values():
            storage.data.close()
    resident = [seconds for seconds, _ in blocks["resident"]]
    rows = []
    for name, measured in blocks.items():
        seconds = [step for step, _ in measured]
        rows.append(
            {
                "storage": name,
                "step_ms": 1e3 * statistics.median(seconds),
                "cost_percent": 100 * (measure.median_ratio(seconds, resident) - 1),
                "waiting_percent": 100 * statistics.median(share for _, share in measured),
                "batches_per_s": 1 / statistics.median(seconds),
                **reading[name],
                "steps": steps,
                "rounds": rounds,
                **measure.machine(),
            }
        )
    return rows


def _start(settings: Any, storage: str) -> Trained:
    """Compiles the step of a storage."""
    settings = ml_collections.ConfigDict(settings.to_dict())
    settings.data.storage = storage
    data = polarjax.data.build(settings.data)
    prepared = prepare(settings, data)
    compiled = prepared.step.lower(prepared.state, prepared.resident, prepared.send(0)).compile()
    return Trained(data, _make_block(prepared, compiled))


def _make_block(prepared: Prepared, compiled: Any) -> Callable[[int], tuple[float, float]]:
    state, number = prepared.state, 0

    def train(steps: int, clock: Clock) -> None:
        """Does what the loop does between two lines of the log."""
        nonlocal state, number
        pending = None
        for _ in range(steps):
            waiting = time.monotonic()
            request = prepared.send(number)
            idle = pending is None or pending["train/loss"].is_ready()
            clock.count(time.monotonic() - waiting, device_idle=idle)
            state, scalars = compiled(state, prepared.resident, request)
            jax.device_get(pending)
            pending, number = scalars, number + 1
        jax.device_get(pending)

    def block(steps: int) -> tuple[float, float]:
        train(STEPS_AHEAD + 2, Clock())
        clock, begin = Clock(), time.monotonic()
        train(steps, clock)
        return (time.monotonic() - begin) / steps, clock.take(1)["time/data_wait"]

    return block


def _read_alone(data: Any, steps: int) -> dict[str, float]:
    """Returns how fast requests come where nothing trains."""
    first = STEPS_AHEAD + 2
    megabytes = 0.0
    for step in range(first):
        megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(data.train(step))) / 1e6
    begin = time.perf_counter()
    for step in range(first, first + steps):
        data.train(step)
    seconds = (time.perf_counter() - begin) / steps
    return {"request_mb": megabytes, "reads_per_s": 1 / seconds, "read_mb_per_s": megabytes / seconds}


if __name__ == "__main__":
    measure.restart_in(measure.fair_environment(cores_as_devices=True))
    measure.run(main)
