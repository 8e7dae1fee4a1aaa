"""The arrays of a session folder: names, types and shapes, opened as memory maps and checked byte by byte."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from polarjax.core import DataError

SHAPES = {
    "frames": ("F", "H", "W"),
    "scenes": ("F", "Hs", "Ws"),
    "frame_index": ("T",),
    "gaze": ("T", "2"),
    "spikes": ("T", "N"),
    "valid": ("T", "N"),
    "trial": ("T",),
    "tier": ("T",),
    "repeat": ("T",),
    "true_rate": ("T", "N"),
    "timestamps": ("T",),
}
DTYPES = {
    "frames": ("uint8", "float32"),
    "scenes": ("uint8", "float32"),
    "frame_index": ("int32",),
    "gaze": ("float32",),
    "spikes": ("uint8", "uint16", "float32"),
    "valid": ("bool",),
    "trial": ("int32",),
    "tier": ("uint8",),
    "repeat": ("int32",),
    "true_rate": ("float32",),
    "timestamps": ("float64",),
}
REQUIRED = ("gaze", "trial", "tier")
DIGEST_BYTES = 64 * 2**20
"""Smaller files are compared with their sha256 at every opening, larger ones by their byte count only."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """Words an error about one session folder, so that each says file, field, value, expectation and remedy."""

    folder: Path

    def error(self, file: str, problem: str, remedy: str) -> DataError:
        """Returns the error to raise about `file` of this folder."""
        return DataError(f"session {self.folder.name}: {file}: {problem}. {remedy} ({self.folder / file})")


def digest(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_array(folder: Path, name: str, sha256: str | None) -> Shaped[np.ndarray, "..."]:
    """Opens one array as a read-only memory map.

    Args:
      folder: the session folder.
      name: of the array, without its suffix.
      sha256: the digest that session.json states.

    Raises:
      DataError: missing, unreadable, not NumPy's format, truncated, of another type or rank, or changed since
        it was written.
    """
    faults, file = Faults(folder), f"{name}.npy"
    path = folder / file
    header_bytes, shape, dtype = _read_header(faults, path)
    expected = header_bytes + math.prod(shape) * dtype.itemsize
    actual = path.stat().st_size
    if actual != expected:
        problem = f"{actual} bytes, but shape {shape} of {dtype} needs {expected}"
        raise faults.error(file, problem, "The file is truncated or was appended to; copy it again")
    if str(dtype) not in DTYPES[name]:
        problem = f"type is {dtype}, expected {' or '.join(DTYPES[name])}"
        raise faults.error(file, problem, "write_session converts where nothing is lost")
    _check_rank(faults, name, shape)
    if sha256 is None:
        raise faults.error(
            "session.json", f"sha256 has no entry for {file}", "Write the session with write_session"
        )
    if actual < DIGEST_BYTES and (found := digest(path)) != sha256:
        problem = f"sha256 is {found[:12]}.., session.json says {str(sha256)[:12]}.."
        raise faults.error(file, problem, "The file changed after the session was written; copy it again")
    if math.prod(shape) == 0:
        remedy = "Every axis needs at least one entry; a session without units has neither spikes.npy nor valid.npy"
        raise faults.error(file, f"is empty, shape {shape}", remedy)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_header(faults: Faults, path: Path) -> tuple[int, tuple[int, ...], np.dtype]:
    if not path.is_file():
        raise faults.error(path.name, "the file is missing", "Copy the whole session folder")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version[0] == 1
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            header_bytes = file.tell()
    except PermissionError as error:
        raise faults.error(
            path.name, f"may not be read ({error.strerror})", "Give this user the right to read"
        ) from error
    except (ValueError, EOFError, OSError) as error:
        raise faults.error(
            path.name, f"is not a NumPy array file ({error})", "Expected the .npy format"
        ) from error
    if fortran or dtype.hasobject:
        remedy = "Write it with write_session"
        raise faults.error(
            path.name, "is in Fortran order or holds Python objects, expected plain C order", remedy
        )
    return header_bytes, shape, dtype


def _check_rank(faults: Faults, name: str, shape: tuple[int, ...]) -> None:
    wanted = SHAPES[name]
    ranks = (3, 4) if name in ("frames", "scenes") else (len(wanted),)
    if len(shape) in ranks:
        return
    remedy = "One unit still needs its axis: [T, 1]" if len(wanted) == 2 else "Add or select the axis"
    raise faults.error(f"{name}.npy", f"shape is {shape}, expected [{', '.join(wanted)}]", remedy)


def convert(folder: Path, name: str, values: object) -> Shaped[np.ndarray, "..."]:
    """Returns `values` in the type that the session folder stores.

    Raises:
      DataError: an unknown name, or values that the stored type cannot hold (overflow, fractions of whole
        numbers).
    """
    if name not in SHAPES:
        raise DataError(
            f"session {folder.name}: array {name!r} has no place in a session; allowed are {', '.join(SHAPES)}"
        )
    given = np.asarray(values)
    if str(given.dtype) in DTYPES[name]:
        return np.ascontiguousarray(given)
    wanted = np.dtype(DTYPES[name][-1])
    with np.errstate(over="ignore", invalid="ignore"):
        stored = given.astype(wanted)
    if wanted == np.float32:
        kept = np.isfinite(stored) == np.isfinite(given.astype(np.float64))
    else:
        kept = stored.astype(given.dtype) == given
    if not kept.all():
        first = np.argwhere(~kept)[0].tolist()
        problem = f"value {given[tuple(first)]} at {first} does not fit {wanted}"
        raise Faults(folder).error(f"{name}.npy", problem, "Usual causes: a sentinel value or another unit")
    return np.ascontiguousarray(stored)
