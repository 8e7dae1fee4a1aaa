"""The persistent compilation cache, so that the second run of a config starts at once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jax


def enable_compilation_cache() -> Path | None:
    """Keeps compiled programs in $XDG_CACHE_HOME/polarjax/jax (~/.cache by default).

    Returns:
      The folder; None where it cannot be written or where JAX_COMPILATION_CACHE_DIR decides already.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "polarjax" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
