"""The arrays of a checkpoint on disk, read with TensorStore alone: no devices, no barrier between processes, no JAX.

Orbax keeps them in one OCDBT database: a manifest, nodes that list the keys, and files of values. Small values lie
in the node itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorstore

MANIFEST = "manifest.ocdbt"
MAX_REASON = 200
EXPANSION = 1 << 15  # bytes that one byte of a file becomes at most: 128 kB of equal bytes are 4 after zstd


def read_arrays(folder: Path, paths: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the arrays of a database, each by itself.

    Args:
      folder: of the database.
      paths: names, as in 'params/core/kernel'.

    Returns:
      {path: array} of those that can be read and {path: reason} of the others.
    """
    arrays, problems = {}, {}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    opened = {path: tensorstore.open(_spec(folder, path), read=True, open=True) for path in paths}
    reading = {}
    for path, future in opened.items():
        try:
            store = future.result()
            _check_sizes(store, size)
            reading[path] = store.read()
        except (OSError, ValueError, RuntimeError) as error:
            problems[path] = _reason(error)
    for path, future in reading.items():
        try:
            arrays[path] = np.asarray(future.result())
        except (OSError, ValueError, RuntimeError) as error:
            problems[path] = _reason(error)
    return arrays, problems


def files_of(folder: Path, path: str) -> list[Path]:
    """Returns the files with the values of an array, or the one on the way to them that cannot be read."""
    store = tensorstore.KvStore.open({"driver": "file", "path": f"{folder.absolute()}/"}).result()
    file = folder / MANIFEST
    try:
        root = tensorstore.ocdbt.dump(store).result()["versions"][-1]["root"]["location"]
        file = _file(folder, root)
        entries = tensorstore.ocdbt.dump(store, root).result()["entries"]
    except (OSError, ValueError, RuntimeError, KeyError, IndexError):
        return [file]
    values = [entry for entry in entries if entry["key"].startswith(_key(path).encode())]
    return sorted(
        {_file(folder, entry["indirect_value"]) for entry in values if "indirect_value" in entry}
    ) or [file]


def _check_sizes(store: tensorstore.TensorStore, size: int) -> None:
    """Raises where files of `size` bytes cannot hold an array: TensorStore would end the process for want of memory."""
    parts = tuple(part or 1 for part in store.chunk_layout.read_chunk.shape or ())
    count = math.prod(-(-length // part) for length, part in zip(store.shape, parts, strict=True))
    values = max(math.prod(store.shape), math.prod(parts))
    if count > size or values * store.dtype.numpy_dtype.itemsize > size * EXPANSION:
        raise ValueError(
            f"a shape of {list(store.shape)} in parts of {list(parts)} in files of {size:,} bytes"
        )


def _file(folder: Path, location: str) -> Path:
    """Reads a location such as 'value:ocdbt.process_0/:d/634a:0:4473'."""
    return folder.joinpath(*location.split(":")[1:-2])


def _spec(folder: Path, path: str) -> dict:
    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": _key(path)}}


def _key(path: str) -> str:
    return path.replace("/", ".") + "/"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON]
