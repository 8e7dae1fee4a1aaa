"""Stopping on a signal: finish the step, save, leave with exit code 75."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from polarjax.core import PolarjaxError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(PolarjaxError):
    """The run was asked to stop and has saved; the same line continues it (exit code 75)."""

    exit_code = 75


@contextlib.contextmanager
def watch_signals() -> Iterator[Callable[[int], bool]]:
    """Yields stop(step): whether SIGTERM, SIGINT or SIGHUP has come.

    A second signal is answered with a line, for the save may be running; the third acts as signals do without this
    function, and what was saved before stays intact even then. With several processes the runtime itself agrees on
    the step at which all of them stop (on SIGTERM), so no handler is set and `stop` must be asked at every step.
    A signal that the program was started to ignore, as SIGHUP under nohup, stays ignored.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    before = _handlers()
    received: list[int] = []

    def remember(number, frame):
        del frame
        received.append(number)
        if len(received) == 2:
            os.write(2, b"stopping: the run is being saved; a third signal ends it at once\n")
        if len(received) == 3:
            _restore(before)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda step: bool(received)
    finally:
        _restore(before)


@contextlib.contextmanager
def leave_on_signal(doing: str) -> Iterator[None]:
    """Ends at the first signal what runs inside, work that leaves nothing to be saved and begins anew.

    Args:
      doing: what is interrupted, for the message.

    Raises:
      Interrupted: SIGTERM, SIGINT or SIGHUP has come.
    """
    before = _handlers()

    def leave(number, frame):
        del number, frame
        raise Interrupted(f"stopped while {doing}; all training is saved: run the same line again")

    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        _restore(before)


@contextlib.contextmanager
def hand_on_signals(act: Callable[[], None]) -> Iterator[list[int]]:
    """Calls `act` at every signal, for a program that waits for another and leaves the stopping to it; needs no device.

    Yields:
      The signals that have come, filled while the context is open.
    """
    before, received = _handlers(), []

    def hand_on(number, frame):
        del frame
        received.append(number)
        act()

    for number in before:
        signal.signal(number, hand_on)
    try:
        yield received
    finally:
        _restore(before)


def _handlers() -> dict:
    """Returns the handlers of the signals that are not ignored."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}


def _restore(handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
