"""Where the time of a run goes: steps, waiting for data, and all that is no training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Clock:
    """Times the training steps between two lines of the log, and of that the time spent waiting for data."""

    def __init__(self, begin: float | None = None):
        """Starts the interval.

        Args:
          begin: `time.monotonic()` when the run started, by default now; what lies between was no training.
        """
        self._begin = time.monotonic() if begin is None else begin
        self._trained = 0.0
        self.restart()

    def restart(self) -> None:
        """Begins a new interval."""
        self._start, self._waited, self._paused = time.monotonic(), 0.0, 0.0
        self._last, self._durations = self._start, []

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps what runs inside (an evaluation, a save) out of the interval."""
        start = time.monotonic()
        yield
        self._last = time.monotonic()
        self._paused += self._last - start

    def count(self, seconds_for_data: float, *, device_idle: bool) -> None:
        """Counts a step; preparing its data is waiting only where the device had nothing else to do."""
        now = time.monotonic()
        self._durations.append(now - self._last)
        self._last = now
        self._waited += seconds_for_data if device_idle else 0.0

    def take(self, batch_size: int) -> dict[str, float]:
        """Returns the numbers of the interval, and begins a new one.

        Returns:
          Samples per second, the share of time waiting for data, median and 99th percentile of the time from step to
          step in ms, and the share of training in all the time since the run started.
        """
        now = time.monotonic()
        elapsed = max(now - self._start - self._paused, 1e-9)
        self._trained += elapsed
        median, slow = np.percentile(self._durations or [0.0], [50, 99])
        numbers = {
            "time/samples_per_second": len(self._durations) * batch_size / elapsed,
            "time/data_wait": min(self._waited / elapsed, 1.0),
            "time/step_median_ms": 1e3 * float(median),
            "time/step_p99_ms": 1e3 * float(slow),
            "time/training_share": min(self._trained / max(now - self._begin, 1e-9), 1.0),
        }
        self.restart()
        return numbers
