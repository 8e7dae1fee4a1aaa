"""Equal budgets in time: how long a step of training takes, and how many steps last as long as another run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polarjax.core import ConfigError
from polarjax.engine import config
from polarjax.engine.history import METRICS, read_curves
from polarjax.engine.storage import storage_errors
from polarjax.studies.plan import Entry

CHOICE = "num_steps.json"
CALIBRATION_STEPS, CALIBRATION_LINES = 60, 6
FAST_LINES = 0.1
SCALED = (
    "data.contrast_anneal",
    "optim.warmup_steps",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
)
RATE = "time/samples_per_second"


def overrides_of(entry: Entry, seed: int) -> dict[str, str]:
    """Values of the config that a run of an entry sets, its seed among them.

    No floor is trained beside the model unless the entry sets train.floor_steps: it would be the same in every run.
    """
    return {"train.floor_steps": "0", **entry.overrides, "seed": str(seed), "data.seed": str(seed)}


def settings_of(entry: Entry, overrides: Mapping[str, str]) -> Any:
    """Opens the config of an entry.

    Raises:
      ConfigError: names the entry, the file and what is wrong.
    """
    try:
        return config.load(entry.config, overrides)
    except ConfigError as error:
        raise ConfigError(f"entry {entry.name!r}: {error}") from None


def training_seconds(folder: Path, batch_size: int) -> float | None:
    """Seconds of training steps in a run's log, whatever interrupted it; without compilation, evaluation and saving.

    Steps after the last line with a time, of a run that ended early at an evaluation between two such lines, count as
    long as the median step. None where there is no line yet.
    """
    seconds = _interval_seconds(folder, batch_size)
    if not seconds:
        return None
    untimed = trained_steps(folder) - sum(steps for steps, _ in seconds)
    return sum(steps * each for steps, each in seconds) + untimed * float(
        np.median([each for _, each in seconds])
    )


def step_seconds(folders: Sequence[Path], batch_size: int) -> float | None:
    """Seconds that a step took in the fastest tenth of the lines of all logs; None where there is no line yet.

    Others only slow a machine down, for whole runs at times, and that should not change a budget.

    Args:
      folders: of runs that differ in their seeds; those that are not there are left out.
      batch_size: of all of them.
    """
    seconds = [each for folder in folders for _, each in _interval_seconds(folder, batch_size)]
    return float(np.quantile(seconds, FAST_LINES)) if seconds else None


def trained_steps(folder: Path) -> int:
    """Last step in a run's log: that of its config, or the one at which it ended early; 0 without a log."""
    return max((step for points in read_curves(folder / METRICS).values() for step, _ in points), default=0)


def last_values(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Last value of each metric in a run's log, of those that it has."""
    curves = read_curves(folder / METRICS)
    return {name: curves[name][-1][1] for name in names if name in curves}


def _interval_seconds(folder: Path, batch_size: int) -> list[tuple[int, float]]:
    """Returns (steps, seconds a step) of every line of the log."""
    points = [(step, rate) for step, rate in read_curves(folder / METRICS).get(RATE, ()) if rate > 0]
    before = [0, *(step for step, _ in points)]
    return [(step - last, batch_size / rate) for last, (step, rate) in zip(before, points, strict=False)]


def calibration_overrides(overrides: Mapping[str, str]) -> dict[str, str]:
    """Values of the config of a short run that is only timed."""
    steps = str(CALIBRATION_STEPS)
    return {
        **overrides,
        "optim.warmup_steps": "1",
        "train.num_steps": steps,
        "train.log_every": str(CALIBRATION_STEPS // CALIBRATION_LINES),
        "train.eval_every": steps,
        "train.save_every": steps,
        "train.eval_batches": "1",
        "train.floor_steps": "0",
    }


def scaled_overrides(entry: Entry, overrides: Mapping[str, str], num_steps: int) -> dict[str, str]:
    """Values of the config for another number of steps: warm-up and intervals keep their share of the run."""
    settings = settings_of(entry, overrides)
    ratio = num_steps / settings.train.num_steps
    values = {"train.num_steps": str(num_steps)}
    for name in SCALED:
        section, key = name.split(".")
        if key in settings[section]:
            value = settings[section][key]
            values[name] = str(max(round(value * ratio), min(value, 1)))
    return {**overrides, **values}


def read_choice(folder: Path) -> int | None:
    """The number of steps that was chosen for a run before; None where none was."""
    try:
        return int(json.loads((folder / CHOICE).read_text(encoding="utf-8"))["num_steps"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{folder / CHOICE} does not hold a number of steps; remove it, with the run beside it, to choose again"
        ) from None


def choose_steps(folder: Path, target: tuple[str, int, float], own_step_seconds: float) -> int:
    """Chooses how many steps last as long as another run's, and writes it down, so that a resumed study keeps it.

    Args:
      folder: of the run.
      target: name of the other entry, its number of steps and its seconds a step.
      own_step_seconds: seconds a step of this entry.
    """
    name, steps, seconds = target
    num_steps = max(round(steps * seconds / own_step_seconds), 1)
    choice = {
        "num_steps": num_steps,
        "as_long_as": name,
        "its_steps": steps,
        "its_step_seconds": seconds,
        "own_step_seconds": own_step_seconds,
    }
    with storage_errors(folder / CHOICE, "the number of steps"):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{CHOICE}.tmp"
        fresh.write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, folder / CHOICE)
    return num_steps
