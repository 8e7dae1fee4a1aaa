"""One run of a study: train.py in a process of its own, its output and its time beside what it trained."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polarjax.core import CheckpointError, PolarjaxError
from polarjax.engine import archive
from polarjax.engine.interruption import Interrupted, hand_on_signals
from polarjax.engine.storage import storage_errors
from polarjax.engine.workdir import FREE, flat_config
from polarjax.reports.evaluate import report_folder

ATTEMPTS, OUTPUT, ERRORS = "attempts.jsonl", "train.log", "errors.log"
SHOWN_LINES = 6


class RunFailed(PolarjaxError):
    """A run of a study ended with an error; the others go on."""


def train_run(train: Path, config: str, overrides: Mapping[str, str], folder: Path) -> None:
    """Trains a run to its end in a process of its own, or continues it.

    Signals are handed on as SIGTERM, which makes the run save. It prints into `train.log` and `errors.log` of its
    folder; `attempts.jsonl` gets a line with its wall-clock and its exit code.

    Args:
      train: train.py.
      config: what --config is given.
      overrides: {'optim.clip_norm': '1.0'}.
      folder: of the run.

    Raises:
      Interrupted: a signal came, or the run itself was stopped by one.
      RunFailed: any other end but 0, with the last lines that it printed.
    """
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    command = [sys.executable, str(train), f"--config={config}", f"--workdir={folder}", *flags]
    begin, started = time.monotonic(), []

    def stop():
        for process in started:
            process.terminate()

    with hand_on_signals(stop) as received, storage_errors(folder, "the output of a run"):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / OUTPUT, "ab") as output, open(folder / ERRORS, "wb") as errors:
            # A session of its own: a signal from the terminal reaches it once, through this process.
            started.append(subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True))
            if received:
                stop()
            code = started[0].wait()
        attempt = {"seconds": round(time.monotonic() - begin, 3), "exit_code": code}
        with open(folder / ATTEMPTS, "a", encoding="utf-8") as attempts:
            attempts.write(json.dumps(attempt) + "\n")
    if received or code == Interrupted.exit_code:
        raise Interrupted(
            f"stopped while {folder} was trained, which is saved; to continue, run the same line again"
        )
    if code:
        raise RunFailed(f"exit code {code}: {_last_lines(folder / ERRORS) or f'see {folder / OUTPUT}'}")


def wall_clock_seconds(folder: Path) -> float:
    """Seconds that all attempts at a run took together, from the start of the process to the written report."""
    return sum(float(attempt["seconds"]) for attempt in _attempts(folder))


def finished_report(folder: Path, settings: Any) -> Path | None:
    """Folder of the report of a run that has nothing left to do: trained to its end, its best checkpoint evaluated.

    Its end is its last step, or an earlier one at which train.py ended with code 0 by itself. None where steps or the
    report are missing, and where the folder holds a run of another config, which train.py
    refuses in its own words.
    """
    saved = folder / "config.json"
    ended = [attempt["exit_code"] for attempt in _attempts(folder)][-1:] == [0]
    if not saved.is_file() or not (ended or settings.train.num_steps in archive.list_steps(folder)):
        return None
    try:
        there = flat_config(json.loads(saved.read_text(encoding="utf-8")))
        step = archive.choose_step(folder, "best")
    except (ValueError, CheckpointError):
        return None
    asked = flat_config(json.loads(json.dumps(settings.to_dict())))
    if any(there.get(name) != asked.get(name) for name in {*there, *asked} if name not in FREE):
        return None
    report = report_folder(folder, step)
    return report if (report / "report.json").is_file() else None


def _attempts(folder: Path) -> list[dict[str, Any]]:
    """Reads attempts.jsonl; a line that a kill cut short is passed over."""
    path, attempts = folder / ATTEMPTS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            attempts.append(json.loads(line))
    return attempts


def _last_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-SHOWN_LINES:])
