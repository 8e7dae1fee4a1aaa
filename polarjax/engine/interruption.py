"""Stopping on a signal: finish the step, save, leave with exit code 75."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterator

import jax
from jax.experimental import multihost_utils

from polarjax.core import PolarjaxError

OTHERS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SIGNALS = (signal.SIGTERM, *OTHERS)


class Interrupted(PolarjaxError):
    """The run was asked to stop and has saved; the same line continues it (exit code 75)."""

    exit_code = 75


@contextlib.contextmanager
def watch_signals() -> Iterator[Callable[[int], bool]]:
    """Yields stop(step): whether SIGTERM, SIGINT, SIGHUP or SIGUSR1 has come; to be asked at every step.

    A second signal is answered with a line, for the save may be running; the third acts as signals do without this
    function, and what was saved before stays intact even then. With several processes JAX itself waits for SIGTERM, in
    any of them, and agrees on the step at which all stop: until then no handler of SIGTERM is set, which would replace
    the one of JAX, the first of the other signals is sent on as SIGTERM, and a second SIGTERM ends the process.
    A signal that the program was started to ignore, as SIGHUP under nohup, stays ignored.
    """
    several = jax.process_count() > 1
    before = _handlers(OTHERS if several else SIGNALS)
    received: list[int] = []
    asked = itertools.count()

    def remember(number, frame):
        del frame
        received.append(number)
        if several and len(received) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(received) == 2:
            os.write(2, b"stopping: the run is being saved; a third signal ends it at once\n")
        if len(received) == 3:
            _restore(before)
            signal.raise_signal(number)

    def stop(step):
        del step
        if not several:
            return bool(received)
        # JAX needs a number that never falls, and the steps of the next run in the process begin at 0 again.
        agreed = multihost_utils.reached_preemption_sync_point(next(asked))
        if agreed:  # JAX has done its part, so that SIGTERM is counted here as the others are
            received.extend([] if received else [signal.SIGTERM])
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, remember)
        return agreed

    for number in before:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        _restore(before)


@contextlib.contextmanager
def leave_on_signal(doing: str) -> Iterator[None]:
    """Ends at the first signal what runs inside, work that leaves nothing to be saved and begins anew.

    Args:
      doing: what is interrupted, for the message.

    Raises:
      Interrupted: SIGTERM, SIGINT, SIGHUP or SIGUSR1 has come.
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


def leave_alone_on_signal(doing: str) -> contextlib.AbstractContextManager[None]:
    """Returns `leave_on_signal` in a run of one process; several go on to the step at which all of them stop."""
    return contextlib.nullcontext() if jax.process_count() > 1 else leave_on_signal(doing)


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


def _handlers(signals: Collection[int] = SIGNALS) -> dict:
    """Returns the handlers of those signals that are not ignored."""
    handlers = {number: signal.getsignal(number) for number in signals}
    return {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}


def _restore(handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
