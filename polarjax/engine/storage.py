"""What the file system refuses, as one line; room that is checked before, and bytes that reach the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from polarjax.core import CheckpointError

OVERHEAD_BYTES = 1 << 20


@contextlib.contextmanager
def storage_errors(path: Path, what: str) -> Iterator[None]:
    """Turns the errors of Orbax and of the file system into one that names the path.

    Args:
      path: file or folder that is written.
      what: what it is, as in 'a checkpoint'.

    Raises:
      CheckpointError: anything inside raised OSError, ValueError or RuntimeError.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: {what} cannot be written ({reason}); what was saved before is intact: "
            "free or repair the storage and run the same line again, or choose another --workdir"
        ) from error


def check_free_space(folder: Path, size: int) -> None:
    """Raises a CheckpointError where `size` bytes and what surrounds them do not fit the storage of `folder`."""
    needed, free = size + size // 10 + OVERHEAD_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"{folder}: a checkpoint needs {needed:,} bytes and {free:,} are free; what was saved before is intact: "
            "free the storage and run the same line again, or choose another --workdir"
        )


def sync_folder(folder: Path) -> None:
    """Returns when all files and names below a folder are on the disk and survive a loss of power."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
