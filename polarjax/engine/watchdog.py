"""Ends a run that hangs, with the stacks of all its threads on stderr, instead of blocking a machine for ever."""

from __future__ import annotations

import faulthandler
import sys
import time

SECONDS_BETWEEN = 1.0  # arming starts a thread; more often would only cost time
TIMES_LONG = 10


class Watchdog:
    """A context manager; `alive` has to be called again before the time is over, or the process ends with code 1.

    Attributes:
      seconds: allowed between two calls; 0 is no watchdog.
    """

    def __init__(self, minutes: float):
        self.seconds = 60.0 * minutes
        self._armed = float("-inf")

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.seconds:
            faulthandler.cancel_dump_traceback_later()

    def alive(self, *, long: bool = False) -> None:
        """Starts the time anew; ten times as long where a program is compiled or a state is saved next."""
        output = sys.__stderr__
        if (
            output is None
            or not self.seconds
            or (not long and time.monotonic() - self._armed < SECONDS_BETWEEN)
        ):
            return
        self._armed = float("-inf") if long else time.monotonic()
        seconds = self.seconds * (TIMES_LONG if long else 1)
        faulthandler.dump_traceback_later(seconds, exit=True, file=output)
