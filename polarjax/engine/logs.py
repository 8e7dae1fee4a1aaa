"""Log files that a full disk does not turn into an end of the training."""

from __future__ import annotations

import contextlib
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
        self._whole: int | None = None  # size without the part of a line that a failed attempt may have left
        self.waiting: list[str] = []

    def append(self, line: str) -> OSError | None:
        """Writes the waiting lines and this one, whole or not at all; returns the error where it is not at all."""
        self.waiting.append(line)
        return self._write()

    def close(self) -> OSError | None:
        """Writes the waiting lines and closes the file; returns the error where lines, which still wait, are lost."""
        error = self._write()
        try:
            os.close(self._descriptor)
        except (
            OSError
        ) as refused:  # where a quota, or a network file system, finds at the end that there is no room
            error = error or refused
        return error

    def _write(self) -> OSError | None:
        rest = "".join(self.waiting).encode()
        try:
            self._cut()
            self._whole = os.fstat(self._descriptor).st_size
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # a file that cannot be cut now is cut before the next attempt
                self._cut()
            return error
        self._whole = None
        self.waiting.clear()
        return None

    def _cut(self) -> None:
        if self._whole is not None:
            os.ftruncate(self._descriptor, self._whole)
            self._whole = None


class EventFile:
    """A file of TensorBoard that ends at the first error: its thread would die of one, and block the run."""

    def __init__(self, path: str):
        self._path = path.removeprefix(PREFIX + ":")
        # A run that is resumed within a second opens the file of the part before.
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
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
