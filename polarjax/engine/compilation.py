"""The persistent compilation cache, so that the second run of a config starts at once."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Returns the folder of compiled programs, $JAX_COMPILATION_CACHE_DIR where it is set."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(chosen) if chosen else cache / "polarjax" / "jax"


def make_cache_folder() -> Path:
    """Makes the folder of compiled programs and writes to it; raises OSError where that is refused."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return folder


def enable_compilation_cache() -> Path | None:
    """Keeps compiled programs in $XDG_CACHE_HOME/polarjax/jax (~/.cache by default).

    Returns:
      The folder; None where JAX_COMPILATION_CACHE_DIR decides already, or where it cannot be written, which one line
      on stderr tells.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    try:
        folder = make_cache_folder()
    except OSError as error:
        print(
            f"warning: compiled programs are not kept, {cache_folder()} cannot be written ({error.strerror}); the run "
            "goes on, and the next one compiles again: set XDG_CACHE_HOME to a folder that you may write",
            file=sys.stderr,
            flush=True,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


SETTLED_STEPS, LATE_PROGRAMS = 10, 2


class ProgramCount:
    """A context manager that counts the programs that are compiled, or taken from the cache, inside it.

    A run needs no new program once it has made ten steps, a line of the log and an evaluation.
    """

    def __init__(self, spent: Callable[[float], None] | None = None):
        """Starts at zero.

        Args:
          spent: is told how many seconds each of them took.
        """
        self._count, self._taken, self._spent = 0, 0, spent
        self._settled: int | None = None  # programs there were when no other was needed any more
        self._logged = self._evaluated = False

    def __enter__(self) -> ProgramCount:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **details: object) -> None:
        del details
        if event == "/jax/core/compile/backend_compile_duration":
            self._count += 1
            if self._spent is not None:
                self._spent(duration_secs)

    def take(self) -> dict[str, int]:
        """Returns the count since the last call; 0 from the second evaluation on, or every step pays for it."""
        count, self._taken = self._count - self._taken, self._count
        return {"time/compiled_programs": count}

    def settle(self, steps: int, logged: bool, evaluated: bool, say: Callable[[str], None]) -> None:
        """Says once where programs are compiled that the run should have had already.

        Args:
          steps: number of steps since the run started, at the end of an interval.
          logged, evaluated: what happened there.
          say: is told the warning.
        """
        self._logged, self._evaluated = self._logged or logged, self._evaluated or evaluated
        if self._settled is None:
            if self._logged and self._evaluated and steps >= SETTLED_STEPS:
                self._settled = self._count
        elif self._count - self._settled > LATE_PROGRAMS:
            say(
                f"warning: {self._count - self._settled} programs were compiled after the first {SETTLED_STEPS} steps, "
                "the first line of the log and the first evaluation, and training waited for them; usual cause: "
                "batches of an evaluation whose shapes differ. time/compiled_programs in metrics.jsonl says when; "
                "make the shapes the same"
            )
            self._settled = sys.maxsize
