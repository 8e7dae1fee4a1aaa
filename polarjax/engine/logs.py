"""Log files that a full disk does not turn into an end of the training."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from tensorboardX import record_writer

PREFIX = "polarjax"


def unwritten(path: str, error: OSError) -> str:
    """Returns the warning that TensorBoard gets no more numbers."""
    reason = error.strerror or str(error)
    return f"warning: {path}: cannot be written for TensorBoard ({reason}); training goes on, metrics.jsonl has it all"


class LineFile:
    """Whole lines at the end of a file; those that could not be written wait for the next attempt.

    Attributes:
      waiting: lines that are not in the file yet.
    """

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.waiting: list[str] = []

    def append(self, line: str) -> OSError | None:
        """Writes the waiting lines and this one, whole or not at all; returns the error where it is not at all."""
        self.waiting.append(line)
        rest = "".join(self.waiting).encode()
        size = os.fstat(self._descriptor).st_size
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            return error
        self.waiting.clear()
        return None

    def close(self) -> None:
        """Closes the file; the lines that wait are lost."""
        os.close(self._descriptor)


class EventFile:
    """A file of TensorBoard that ends at the first error: its thread would die of one, and block the run."""

    def __init__(self, path: str):
        self._path = path.removeprefix(PREFIX + ":")
        self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
        self._broken = False

    def write(self, content: bytes) -> None:
        """Appends, until the first error, which is told."""
        if self._broken:
            return
        try:
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._broken = True
            print(unwritten(self._path, error), file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Does nothing, for nothing is buffered."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _EventFiles:
    """How tensorboardX opens the files whose path begins with the prefix."""

    open = staticmethod(EventFile)

    @staticmethod
    def directory_check(path: str) -> None:
        """Makes the folder."""
        os.makedirs(path.removeprefix(PREFIX + ":"), exist_ok=True)


record_writer.register_writer_factory(PREFIX, _EventFiles)
