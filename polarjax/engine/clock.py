"""Where the time of a run goes: useful steps, and each cause of all that is none."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

CAUSES = ("compile", "data", "checkpoint", "restore", "evaluation", "repeated")


class Clock:
    """Times the steps between two lines of the log, and since the run started what was no training.

    The causes are compilation, waiting for data, saving, reading a checkpoint, evaluation, and steps that a killed
    run had done already after its last checkpoint. Time inside two of them counts for the inner one.

    Attributes:
      repeated: number of steps that were trained again.
    """

    def __init__(self):
        """Starts the run and its first interval."""
        self._begin = time.monotonic()
        self._spent = dict.fromkeys(CAUSES, 0.0)
        self._inside: float | None = (
            None  # seconds of inner causes in the cause that runs; None where none runs
        )
        self._trained, self.repeated = 0.0, 0
        self.restart()

    def restart(self) -> None:
        """Begins a new interval."""
        self._start, self._waited, self._paused, self._again = time.monotonic(), 0.0, 0.0, 0.0
        self._last, self._durations = self._start, []

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps what runs inside (an evaluation, a save) out of the interval."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._paused += self._last - start

    @contextmanager
    def spend(self, cause: str) -> Iterator[None]:
        """Counts the time of what runs inside for a cause."""
        start, outer, self._inside = time.monotonic(), self._inside, 0.0
        try:
            yield
        finally:
            elapsed = time.monotonic() - start
            self._spent[cause] += elapsed - self._inside
            self._inside = None if outer is None else outer + elapsed

    def timed(self, cause: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, its time counted for a cause."""

        @functools.wraps(function)
        def run(*arguments, **options):
            with self.spend(cause):
                return function(*arguments, **options)

        return run

    def compiled(self, seconds: float) -> None:
        """Notes the time that a program took to compile."""
        self.add("compile", seconds)

    def add(self, cause: str, seconds: float) -> None:
        """Counts time that was measured elsewhere for a cause."""
        self._spent[cause] += seconds
        if self._inside is not None:
            self._inside += seconds

    def count(self, seconds_for_data: float, *, device_idle: bool, again: bool = False) -> None:
        """Counts a step; preparing its data is waiting only where the device had nothing else to do.

        Args:
          again: whether a run that was killed had done this step already.
        """
        now, waited = time.monotonic(), seconds_for_data if device_idle else 0.0
        self._durations.append(now - self._last)
        self._again += max(now - self._last - waited, 0.0) if again else 0.0
        self._last = now
        self._waited += waited
        self.repeated += again

    def take(self, batch_size: int) -> dict[str, float]:
        """Returns the numbers of the interval, and begins a new one.

        Returns:
          Samples per second, the share of time waiting for data, median and 99th percentile of the time from step to
          step in ms; since the run started the number of steps that were trained again and `shares`.
        """
        elapsed, durations, waited = self._close()
        median, slow = np.percentile(durations or [0.0], [50, 99])
        return {
            "time/samples_per_second": len(durations) * batch_size / elapsed,
            "time/data_wait": min(waited / elapsed, 1.0),
            "time/step_median_ms": 1e3 * float(median),
            "time/step_p99_ms": 1e3 * float(slow),
            "time/repeated_steps": self.repeated,
            **{f"time/{cause}_share": share for cause, share in self.shares().items()},
        }

    def _close(self) -> tuple[float, list[float], float]:
        """Adds the interval to the sums of the run; returns its seconds of training, its steps and its waiting."""
        elapsed = max(time.monotonic() - self._start - self._paused, 1e-9)
        durations, waited = self._durations, self._waited
        self._trained += max(elapsed - waited - self._again, 0.0) if durations else 0.0
        self.add("data", waited)
        self.add("repeated", self._again)
        self.restart()
        return elapsed, durations, waited

    def shares(self) -> dict[str, float]:
        """Returns {'training': useful steps, and each cause}, parts of all the time since the run started."""
        total = max(time.monotonic() - self._begin, 1e-9)
        return {
            name: min(seconds / total, 1.0)
            for name, seconds in {"training": self._trained, **self._spent}.items()
        }

    @contextmanager
    def told_to(self, say: Callable[[str], None]) -> Iterator[None]:
        """Says the summary at the end of what runs inside, however it ends, where it made steps."""
        try:
            yield
        finally:
            text = self.summary()
            if self._trained or self.repeated:
                say(text)

    def summary(self) -> str:
        """Returns the shares in one line; ends the interval."""
        self._close()
        shares = self.shares()
        shares["other"] = max(1 - sum(shares.values()), 0.0)
        parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        again = f"; {self.repeated} steps were trained again" if self.repeated else ""
        return f"time: {parts} of {time.monotonic() - self._begin:.1f} s{again}"
