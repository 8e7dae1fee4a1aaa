"""What the file system refuses, as one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from polarjax.core import CheckpointError


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
