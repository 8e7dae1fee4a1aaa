"""The persistent compilation cache, so that the second run of a config starts at once."""

from __future__ import annotations

import os
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
      The folder; None where it cannot be written or where JAX_COMPILATION_CACHE_DIR decides already.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    try:
        folder = make_cache_folder()
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


class ProgramCount:
    """A context manager that counts the programs that are compiled, or taken from the cache, inside it."""

    def __init__(self, spent: Callable[[float], None] | None = None):
        """Starts at zero.

        Args:
          spent: is told how many seconds each of them took.
        """
        self._count, self._spent = 0, spent

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
        count, self._count = self._count, 0
        return {"time/compiled_programs": count}
