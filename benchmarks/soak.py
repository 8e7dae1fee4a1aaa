"""Kills a small training run again and again, then damages its checkpoints: nothing may be lost or be silently wrong.

python -m benchmarks.soak [--kills 40] [--corruptions 120] [--seed 0] [--json FILE]

A run is killed with SIGKILL at a random point, from the start of its process to its end, and started again with the
same command. Where it ends, its parameters are compared bit for bit with those of a run that nothing killed, its log
must have every step once, and the next run begins. Exit code 1 where anything differs.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks import measure
from polarjax.core import CheckpointError, PolarjaxError
from polarjax.engine import archive, checkpoints, interruption
from polarjax.engine.flags import parse_flags
from polarjax.engine.state import TrainState, flatten
from polarjax.engine.writer import METRICS

FLAGS = {
    "kills": "how often a run is killed (default: 40)",
    "corruptions": "how often a file of its newest checkpoint is damaged (default: 120)",
    "steps": "length of the run in steps, each of which is saved (default: 30)",
    "seed": "of the points in time and of the damages (default: 0)",
    "json": "file for the numbers",
    "train": "folder: trains there, once; what the soak starts and kills",
}
ROOT = pathlib.Path(__file__).resolve().parents[1]
KINDS = ("flip a bit", "truncate", "delete", "zero a block")


def main(arguments: list[str]) -> int:
    """Reads the flags, kills, damages, prints the table and writes the JSON; returns the exit code."""
    flags, _ = parse_flags(arguments, FLAGS, __doc__ or "")
    numbers = {
        name: measure.whole_number(flags, name, default, least=0)
        for name, default in {"kills": 40, "corruptions": 120, "steps": 30, "seed": 0}.items()
    }
    if "train" in flags:
        train(pathlib.Path(flags["train"]), numbers["steps"])
        return 0
    with tempfile.TemporaryDirectory(prefix="polarjax-soak-") as folder:
        report = soak(pathlib.Path(folder), **numbers)
    print("\n".join(f"{name:<44}{value!s:>10}" for name, value in report.items()))
    measure.write_json(flags, report)
    return 1 if any(value for name, value in report.items() if name.startswith("wrong: ")) else 0


def soak(folder: pathlib.Path, *, kills: int, corruptions: int, steps: int, seed: int) -> dict[str, Any]:
    """Kills and damages runs below `folder`.

    Returns:
      Counts; those whose name begins with 'wrong: ' are 0 where all is well.
    """
    generator = random.Random(seed)
    whole = folder / "whole"
    _finish(whole, steps)  # fills the caches of data and compiled programs
    shutil.rmtree(whole)
    begin = time.monotonic()
    _finish(whole, steps)
    duration = time.monotonic() - begin
    killed = kill_runs(whole, steps, duration, kills, generator)
    return {"uninterrupted run, s": round(duration, 1), **killed, **damage(whole, corruptions, generator)}


def kill_runs(
    whole: pathlib.Path, steps: int, duration: float, kills: int, generator: random.Random
) -> dict[str, Any]:
    """Kills runs until `kills` are reached, lets each of them end and compares it with the one in `whole`."""
    found: collections.Counter[str] = collections.Counter()
    reached: list[int] = []
    while found["kills"] < kills:
        workdir = whole.with_name(f"run-{found['runs']}")
        while found["kills"] < kills and not _finish(workdir, steps, generator.uniform(0, duration)):
            found["kills"] += 1
            saved = checkpoints.list_steps(workdir)
            reached.append(saved[-1] if saved else -1)
            found["wrong: listed checkpoints that are damaged"] += _damaged(workdir, saved)
        _finish(workdir, steps)
        found["runs"] += 1
        found["wrong: runs with other final bits"] += not _same(
            checkpoints.restore(workdir, steps)[0], checkpoints.restore(whole, steps)[0]
        )
        found["wrong: runs with a gap or a double in the log"] += _log(workdir) != _log(whole)
        shutil.rmtree(workdir)
    return {
        "kills": found["kills"],
        "kills before the first checkpoint": reached.count(-1),
        "kills after the first checkpoint": sum(step >= 0 for step in reached),
        "runs that ended and were compared": found["runs"],
        **{
            name: found[name]
            for name in (
                "wrong: listed checkpoints that are damaged",
                "wrong: runs with other final bits",
                "wrong: runs with a gap or a double in the log",
            )
        },
    }


def damage(whole: pathlib.Path, corruptions: int, generator: random.Random) -> dict[str, Any]:
    """Damages one random file of the newest checkpoint at a time, and reads what a resumed run would read."""
    steps = checkpoints.list_steps(whole)
    newest, before = (checkpoints.restore(whole, step)[0] for step in (steps[-1], steps[-2]))
    found = dict.fromkeys(
        ("corruptions", "detected, the step before restored", "harmless, every value verified"), 0
    )
    wrong = {
        "wrong: silently other values": 0,
        "wrong: damage without a name": 0,
        "wrong: refused to resume": 0,
    }
    for _ in range(corruptions):
        found["corruptions"] += 1
        copy = whole.with_name("damaged")
        shutil.copytree(whole, copy)
        files = sorted(
            path for path in archive.checkpoint_folder(copy, steps[-1]).rglob("*") if path.is_file()
        )
        spoil(generator.choice(files), generator.choice(KINDS), generator)
        try:
            restored, warnings = checkpoints.latest_intact(copy)
        except CheckpointError:
            wrong["wrong: refused to resume"] += 1
        else:
            state = None if restored is None else restored[0]
            if warnings:
                found["detected, the step before restored"] += 1
                aside = archive.checkpoint_folder(copy, steps[-1]).with_name(f"corrupt-{steps[-1]}")
                named = aside.is_dir() and f"step {steps[-1]} is damaged, " in warnings[0]
                wrong["wrong: damage without a name"] += not named
            else:
                found["harmless, every value verified"] += 1
            wrong["wrong: silently other values"] += not _same(state, before if warnings else newest)
        shutil.rmtree(copy)
    return found | wrong


def spoil(path: pathlib.Path, kind: str, generator: random.Random) -> None:
    """Damages a file in one of the ways of `KINDS`; an empty one is deleted."""
    content = bytearray(path.read_bytes())
    if kind == "delete" or not content:
        path.unlink()
        return
    place = generator.randrange(len(content))
    if kind == "flip a bit":
        content[place] ^= 1 << generator.randrange(8)
    elif kind == "truncate":
        del content[place:]
    else:
        block = content[place : place + 512]
        content[place : place + 512] = bytes(len(block))
    path.write_bytes(content)


def train(workdir: pathlib.Path, steps: int) -> None:
    """Trains a Polar-V1 of a few parameters and saves every step, as train.py does."""
    import polarjax.data
    import polarjax.systems
    from polarjax.engine import compilation, loop

    settings = make_config(workdir.parent / "cache", steps)
    compilation.enable_compilation_cache()
    data = polarjax.data.build(settings.data)
    try:
        with interruption.watch_signals() as stop:
            loop.train(settings, polarjax.systems.build(settings, data.info), data, workdir, stop=stop)
    finally:
        data.close()


def make_config(cache: pathlib.Path, steps: int) -> Any:
    """Returns the quick config made much smaller, with a save after each step and a prune after each save."""
    from configs import polar

    settings = polar.get_config("quick")
    with settings.ignore_type():
        settings.data.virtual.update(minutes=0.4, cache=str(cache / "sessions"))
        settings.data.update(burn_in=4, predicted=4, batch_size=8)
        settings.model.kwargs = {
            "n_levels": 1,
            "n_pairs": 2,
            "kernel_size": 3,
            "code_width": 4,
            "finest_stride": 2,
        }
        settings.optim.warmup_steps = 5
        settings.train.update(num_steps=steps, log_every=1, save_every=1, eval_every=20, eval_batches=1)
    return settings


def _finish(workdir: pathlib.Path, steps: int, delay: float | None = None) -> bool:
    """Runs the training command; False where it had to be killed after `delay` seconds."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = _command(workdir, steps)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            raise PolarjaxError(f"{' '.join(command)} ended with code {process.returncode}:\n{text}")
    return True


def _command(workdir: pathlib.Path, steps: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.soak", "--train", str(workdir), "--steps", str(steps)]


def _damaged(workdir: pathlib.Path, steps: list[int]) -> int:
    count = 0
    for step in steps:
        try:
            checkpoints.restore(workdir, step)
        except CheckpointError:
            count += 1
    return count


def _same(left: TrainState | None, right: TrainState) -> bool:
    if left is None:
        return False
    mine, its = flatten(left), flatten(right)
    return mine.keys() == its.keys() and all(
        np.asarray(mine[path]).tobytes() == np.asarray(its[path]).tobytes() for path in mine
    )


def _log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl without the times, in which two runs differ."""
    lines = map(json.loads, (workdir / METRICS).read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


if __name__ == "__main__":
    measure.run(main)
