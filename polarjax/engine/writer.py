"""What a run tells: metrics.jsonl, TensorBoard, a progress bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress
import tensorboardX

from polarjax.engine.history import METRICS, read_line
from polarjax.engine.logs import PREFIX, LineFile, unwritten
from polarjax.engine.storage import storage_errors

WHOLE = ("train/skipped_steps", "train/loss_spikes", "time/compiled_programs", "time/repeated_steps")
SHOWN = ("train/loss", "eval/bits_per_spike", "time/samples_per_second")
TIMED_STEPS, LONG_DAYS = 3, 30.0


class Writer:
    """Writes the numbers of a run; a context manager. Silent in all processes but the first.

    Attributes:
      reached: last step in the log of the run that is continued, 0 without one.
    """

    def __init__(self, workdir: Path, *, start: int, total: int, primary: bool):
        """Opens the logs, and drops the lines of steps after `start` that an interrupted run left.

        Args:
          workdir: folder of the run.
          start: step that the run continues from.
          total: last step.
          primary: whether this process writes.
        """
        self._primary, self._total = primary, total
        self._first_line: tuple[float, int] | None = None
        self._begins: list[float] = []
        self._path, self.reached = workdir / METRICS, 0
        self._bar = None
        if not primary:
            return
        with storage_errors(self._path, "the log"):
            self.reached = _drop_after(self._path, start)
            self._file, self._warned = LineFile(self._path), False
        self._board = _open_board(workdir / "tensorboard", start)
        if sys.stdout.isatty() and start < total:
            self._bar = _make_bar()
            self._task = self._bar.add_task("train", total=total, completed=start, rate="")
            self._bar.start()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._primary:
            self._close_log()
            if self._board is not None:
                self._board.close()

    def _close_log(self) -> None:
        error = self._file.close()
        if error is not None:
            self.say(
                f"warning: {self._path}: the log cannot be written ({error.strerror}); the lines that it lacks at its "
                "end are lost: free the storage before the run is continued"
            )

    def say(self, text: str) -> None:
        """Prints a line above the progress bar, or as it is."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._primary:
            print(text, flush=True)

    def advance(self, step: int) -> None:
        """Moves the progress bar; call it when a step was sent and the one before has ended."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
        if len(self._begins) < TIMED_STEPS:
            self._begins.append(time.monotonic())
            if len(self._begins) == TIMED_STEPS:
                self._tell_long_run(self._begins[-1] - self._begins[-2], step)

    def _tell_long_run(self, seconds: float, step: int) -> None:
        """Says at once what the first line of the log would say after hours: that this machine is too small."""
        days = seconds * (self._total - step) / 86400
        if days > LONG_DAYS:
            self.say(
                f"a step takes {seconds:.3g} s here, and the run {days:,.0f} days; the form of a config for a small "
                "machine, where it has one, is --config FILE.py:quick"
            )

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Appends one line of metrics; numbers that are not finite are left out, for JSON has none.

        A line that the storage refuses waits for the next one, and training goes on.
        """
        if not self._primary:
            return
        arrays = {name: np.asarray(value, np.float64) for name, value in numbers.items()}
        values = {name: array.tolist() for name, array in arrays.items() if np.isfinite(array).all()}
        values = {name: int(value) if name in WHOLE else value for name, value in values.items()}
        error = self._file.append(json.dumps({"step": step, **values}) + "\n")
        if error is not None and not self._warned:
            self._warned = True
            self.say(
                f"warning: {self._path}: the log cannot be written ({error.strerror}); its lines are kept and "
                "training goes on: free the storage before the run ends"
            )
        for name, value in values.items():
            if self._board is not None and not isinstance(value, list):
                self._board.add_scalar(name, value, step)
        self._show(step, values)

    def _show(self, step: int, values: Mapping[str, Any]) -> None:
        rate = values.get("time/samples_per_second")
        shown = [f"{name} {values[name]:.4g}" for name in SHOWN if name in values]
        if self._bar is not None:
            if rate is not None:
                self._bar.update(self._task, rate=f"{rate:,.0f} samples/s")
            if "eval/bits_per_spike" in values:
                self.say(f"step {step}/{self._total}  " + "  ".join(shown))
            return
        self.say(f"step {step}/{self._total}  " + "  ".join(shown) + self._remaining(step))

    def _remaining(self, step: int) -> str:
        if self._first_line is None:
            self._first_line = (time.monotonic(), step)
        begin, first = self._first_line
        if step in (first, self._total):
            return ""
        seconds = (time.monotonic() - begin) / (step - first) * (self._total - step)
        return f"  ETA {datetime.timedelta(seconds=round(seconds))}"


def _open_board(folder: Path, start: int) -> tensorboardX.SummaryWriter | None:
    """Opens TensorBoard's file; where that is refused, metrics.jsonl has to do."""
    try:
        return tensorboardX.SummaryWriter(f"{PREFIX}:{folder}", purge_step=start + 1)
    except OSError as error:
        print(unwritten(str(folder), error), flush=True)
        return None


def _make_bar() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
    )


def _drop_after(path: Path, step: int) -> int:
    """Rewrites the log without the lines after `step` and a line that a kill cut short; returns its last step."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return 0
    whole = [(fields["step"], line) for line in lines if (fields := read_line(line)) is not None]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(line + "\n" for number, line in whole if number <= step), encoding="utf-8")
    os.replace(fresh, path)
    return max((number for number, _ in whole), default=0)
