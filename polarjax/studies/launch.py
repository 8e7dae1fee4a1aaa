"""One run of a study: train.py in a process of its own, its output and its time beside what it trained."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
from polarjax.engine.workdir import flat_config
from polarjax.reports.evaluate import report_folder

ATTEMPTS, OUTPUT, ERRORS = "attempts.jsonl", "train.log", "errors.log"
SHOWN_LINES = 6
HARMLESS = (
    "train.log_every",
    "train.watchdog_minutes",
)  # the other intervals choose which checkpoint is the best
LEASH = Path(__file__).with_name("leash.py")


class RunFailed(PolarjaxError):
    """A run of a study ended with an error; the others go on."""


def train_run(train: Path, config: str, overrides: Mapping[str, str], folder: Path) -> None:
    """Trains a run to its end in a process of its own, or continues it.

    Signals are handed on as SIGTERM, which makes the run save. It prints into `train.log` and `errors.log` of its
    folder; `attempts.jsonl` gets a line with its wall-clock and its exit code. Where this process is killed, the run is
    told to save and leave (on Linux).

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
    run = [sys.executable, str(train), f"--config={config}", f"--workdir={folder}", *flags]
    command = [sys.executable, str(LEASH), str(os.getpid()), *run]
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
        raise RunFailed(f"{_ending(code)}: {_last_lines(folder / ERRORS) or f'see {folder / OUTPUT}'}")


def wall_clock_seconds(folder: Path) -> float:
    """Seconds that all attempts at a run took together, from the start of the process to the written report."""
    return sum(float(attempt["seconds"]) for attempt in _attempts(folder))


def finished_report(folder: Path, settings: Any) -> Path | None:
    """Folder of the report of a run that has nothing left to do: trained to its end, its best checkpoint evaluated.

    Its end is its last step, or an earlier one at which train.py ended with code 0 by itself. None where steps or the
    report are missing, and where the folder holds a run of another config.
    """
    ended = [attempt["exit_code"] for attempt in _attempts(folder)][-1:] == [0]
    if not (ended or settings.train.num_steps in archive.list_steps(folder)):
        return None
    if _saved_config(folder) is None or differences(folder, settings):
        return None
    try:
        report = report_folder(folder, archive.choose_step(folder, "best"))
    except CheckpointError:
        return None
    return report if (report / "report.json").is_file() else None


def differences(folder: Path, settings: Any) -> dict[str, tuple[Any, Any]]:
    """Compares the config that was saved in a folder with one that is to be trained there.

    Returns:
      {name: (there, here)} of the values that differ and may change a number of the run or of its report; {} where no
      config can be read.
    """
    there = _saved_config(folder)
    if there is None:
        return {}
    here = flat_config(json.loads(json.dumps(settings.to_dict())))
    names = [name for name in dict.fromkeys((*here, *there)) if name not in HARMLESS]
    values = {name: (there.get(name), here.get(name)) for name in names}
    return {name: (before, now) for name, (before, now) in values.items() if before != now}


def _saved_config(folder: Path) -> dict[str, Any] | None:
    try:
        return flat_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _ending(code: int) -> str:
    """How a run ended that did not end with code 0, and what to do where the system killed it."""
    if code >= 0:
        return f"exit code {code}"
    if code != -signal.SIGKILL:
        return f"ended by signal {-code} ({signal.strsignal(-code)}); the same line continues it"
    return (
        "killed by the system (signal 9), probably out of memory; end other programs and run the same line again, "
        "which continues it, or train with smaller batches (--config.data.batch_size) in another --workdir"
    )


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
