"""The comparison with PyTorch: the same models and weights on both sides, timed in turn in one run."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import cases, floors, measure, peak_memory
from benchmarks.cases import Case
from polarjax.core import ConfigError
from polarjax.engine.compilation import enable_compilation_cache
from polarjax.engine.memory import needed_bytes

FIRST_LOSS_TOLERANCE = 1e-4
COLUMNS = (
    *("config", "batch", "predicted", "torch_ms", "ours_ms", "ratio_eager", "ratio_eager_cpu"),
    *("ratio_compile", "torch_bins_per_s", "bins_per_s", "torch_peak_mb", "peak_mb", "memory_ratio"),
    *("step_memory_mb", "floor_ms", "floor_ratio"),
)


def check_torch() -> None:
    """Raises ConfigError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "the comparison needs PyTorch, which is not installed: pip install -e '.[torch]'; without it, "
            "--config FILE times our train step alone"
        )


def compare(
    names: list[str], rounds: int, *, compiles: bool, small: bool, keep: Callable[[list], None]
) -> list[dict[str, Any]]:
    """Measures rows of `cases.CASES`; prints a line for each.

    Args:
      rounds: steps of each side that are timed, each after one that is not; two more come before all.
      compiles: whether to compile the models in PyTorch, too.
      small: whether to take sizes that only show that all works.
      keep: is given all rows so far after each of them, so that a run that is ended keeps what it has.

    Returns:
      One object a row; what the columns mean is in docs/benchmarks.md.
    """
    enable_compilation_cache()
    peaks = floors.measure_peaks(*((256, 2**20) if small else ()))
    print(f"peak: product {peaks.flops / 1e9:,.0f} GFLOP/s, copy {peaks.bytes / 1e9:,.1f} GB/s", flush=True)
    rows = []
    for name in names:
        case = cases.small(cases.CASES[name]) if small else cases.CASES[name]
        row = measure_row(case, peaks, rounds, compiles=compiles)
        rows.append({**row, **_memory(case.name, small=small)})
        done = (
            f"{column} {rows[-1][column]:.1f}" for column in ("ratio_eager", "memory_ratio", "floor_ratio")
        )
        print(f"{name}: {', '.join(done)}", flush=True)
        keep(rows)
    return rows


def measure_row(case: Case, peaks: floors.Peaks, rounds: int, *, compiles: bool) -> dict[str, Any]:
    """Checks that both sides of a row are the same model, then times their steps in turn.

    Raises:
      NumericError: loss or gradients differ.
    """
    from benchmarks import torch_steps

    windows = case.predicted == 1
    if windows:
        torch_steps.check_twin(case)
    twin = torch_steps.Twin(case)
    variables = twin.variables if windows else cases.initial_variables(case)
    ours, theirs = cases.compile_step(case, variables), torch_steps.TorchStep(twin, case)
    loss, their_loss = float(ours.run()["train/loss"]), theirs.run()
    if windows:
        torch_steps.compare(f"{case.name}: first loss", loss, their_loss, FIRST_LOSS_TOLERANCE)
    theirs.choose_threads()
    functions = {"torch": theirs.run, "ours": ours.run}
    compile_s = None
    if compiles:
        compiled = torch_steps.TorchStep(twin, case)
        compile_s = compiled.compile()
        functions = {"torch": theirs.run, "torch_compiled": compiled.run, "ours": ours.run}
    measure.in_turn(functions, measure.WARM_UP)
    times = measure.in_turn(functions, rounds, untimed=1)
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))
    work = floors.count_work(
        cases.make_model(case),
        n_parameters=parameters,
        batch=case.batch,
        frames=case.frames,
        predicted=case.predicted,
    )
    floor = floors.floor_seconds(work, peaks)
    return {
        **_speeds(case, times),
        "torch_threads": theirs.threads,
        "torch_compile_s": compile_s,
        "step_memory_mb": jax.device_count() * (needed_bytes(ours.compiled) or 0) / 2**20,
        "gflop": work.flops / 1e9,
        "gbyte": work.bytes / 1e9,
        "peak_gflops": peaks.flops / 1e9,
        "peak_gbytes": peaks.bytes / 1e9,
        "floor_ms": 1e3 * floor,
        "floor_ratio": statistics.median(times["ours"].wall) / floor,
        "rounds": rounds,
        **measure.machine(),
    }


def _speeds(case: Case, times: dict[str, measure.Times]) -> dict[str, Any]:
    """Returns times of both sides and ratios by predicted bin: a window of the twin is one bin."""
    ours, theirs = times["ours"], times["torch"]
    step, their_step = statistics.median(ours.wall), statistics.median(theirs.wall)
    compiled = times.get("torch_compiled")
    return {
        "config": case.name,
        "batch": case.batch,
        "frames": case.frames,
        "predicted": case.predicted,
        "torch_ms": 1e3 * their_step,
        "torch_cpu_ms": 1e3 * statistics.median(theirs.cpu),
        "ours_ms": 1e3 * step,
        "ours_cpu_ms": 1e3 * statistics.median(ours.cpu),
        "ratio_eager": case.predicted * measure.median_ratio(theirs.wall, ours.wall),
        "ratio_eager_cpu": case.predicted * measure.median_ratio(theirs.cpu, ours.cpu),
        "ratio_compile": compiled and case.predicted * measure.median_ratio(compiled.wall, ours.wall),
        "torch_bins_per_s": case.batch / their_step,
        "bins_per_s": case.batch * case.predicted / step,
    }


def _memory(name: str, *, small: bool) -> dict[str, float]:
    """Returns what a step adds to the memory of a process, on both sides."""
    peak_memory.release()  # what the steps of this process left would take the machine's memory from the others
    added = {}
    for side in peak_memory.SIDES:
        held = peak_memory.measure_child(name, side, small=small, environment=dict(os.environ))
        added[side] = max(held["peak_mb"] - held["baseline_mb"], 1.0)
    return {
        "torch_peak_mb": added["torch"],
        "peak_mb": added["ours"],
        "memory_ratio": added["torch"] / added["ours"],
    }


def plot(rows: list[dict[str, Any]], file: pathlib.Path) -> None:
    """Draws how many times faster than PyTorch and how many times slower than its floor each row is."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 0.5 * len(rows) + 1.5), sharey=True, layout="constrained")
    titles = {
        "ratio_eager": "speed over PyTorch eager",
        "memory_ratio": "memory of PyTorch over ours",
        "floor_ratio": "time over its floor",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        bars = axis.barh([row["config"] for row in rows], [row[name] for row in rows], color="tab:blue")
        axis.bar_label(bars, fmt="%.1f", padding=2)
        axis.set(title=title)
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.invert_yaxis() if axis is axes[0] else None
    figure.savefig(file, dpi=150)
    plt.close(figure)
