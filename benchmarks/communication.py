"""Predicts what the all-reduce of a step costs beside its computation, on up to 1,024 devices; nothing is measured.

python -m benchmarks.communication        prints the table of docs/scale.md
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from benchmarks import cases, floors, measure
from configs import polar
from polarjax.engine.flags import parse_flags

DEVICES = (2, 8, 64, 256, 1024)
BATCH = 3072  # three rows a device where there are most: K = 1,024 micro-batches need as many rows a session
BANDWIDTH, LATENCY = 50e9, 5e-6  # bytes/s of a device, s a hop: a 400 Gbit/s network
PEAK, UTILISATION = 67e12, 0.25  # operations/s, float32 on an H100 SXM as published, and the share reached
HEADER = (
    "| Devices n | Rows a device | Compute | Plain, bytes 4 P | Ratio | Deterministic, K = n, bytes 4 P n | Ratio "
    "| Its matrix [K, P] |"
)


def main(arguments: list[str]) -> None:
    """Counts the model of configs/polar.py and prints the table."""
    parse_flags(arguments, {}, __doc__ or "")
    numbers, operations = count_model()
    print(f"P = {numbers:,} numbers, {operations / 1e9:.1f} GFLOP a row")
    print(HEADER)
    for devices in DEVICES:
        print(table_row(devices, numbers, operations))


def count_model() -> tuple[int, float]:
    """Returns P, the parameters and statistics of configs/polar.py with 100 units, and its operations a row."""
    data = polar.get_config().data
    sizes = {"burn_in": data.burn_in, "predicted": data.predicted}
    case = dataclasses.replace(cases.CASES["default"], batch=1, **sizes)
    _, system = cases.make_system(case)
    example = cases.make_batch(case, case.frames, case.predicted)
    shapes = jax.tree.leaves(jax.eval_shape(system.init, jax.random.key(0), example))
    numbers = sum(int(np.prod(leaf.shape)) for leaf in shapes)
    counted = {"n_parameters": numbers, "batch": 1, "frames": case.frames, "predicted": case.predicted}
    return numbers, floors.count_work(cases.make_model(case), **counted).flops


def ring_seconds(devices: int, size: float) -> float:
    """Returns the time of a ring all-reduce.

    Args:
      devices: number of devices n.
      size: bytes of the vector.
    """
    return 2 * (devices - 1) * (size / devices / BANDWIDTH + LATENCY)


def compute_seconds(devices: int, operations: float) -> float:
    """Returns the time in which a device computes its rows of the batch.

    Args:
      devices: number of devices n.
      operations: a row.
    """
    return BATCH / devices * operations / (PEAK * UTILISATION)


def table_row(devices: int, numbers: int, operations: float) -> str:
    """Returns a line of the table."""
    compute = compute_seconds(devices, operations)
    cells = [f"{devices:,}", f"{BATCH // devices:,}", f"{1e3 * compute:,.1f} ms"]
    for size in (4 * numbers, 4 * numbers * devices):
        travel = ring_seconds(devices, size)
        cells += [f"{1e3 * travel:.2g} ms", f"{travel / compute:.2g}"]
    return f"| {' | '.join([*cells, f'{4e-6 * numbers * devices:,.0f} MB'])} |"


if __name__ == "__main__":
    measure.run(main)
