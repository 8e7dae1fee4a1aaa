"""The format of one checkpoint: arrays with a digest each, and JSON that has one too.

`<workdir>/checkpoints/<step>/state` holds the arrays (Orbax) in nested dicts named as in TrainState;
`<workdir>/checkpoints/<step>/meta/metadata` holds JSON: format_version, config, info, versions, git_commit,
step, metrics, tally, digests {path: sha256} and the digest of all these.

Orbax writes files beside these that nothing here reads: _METADATA, _CHECKPOINT_METADATA, commit_success.txt and the
manifests of single processes. Damage of one of them is not reported, and cannot be harmful: which arrays there are,
and that every value is the one that was saved, is known from the digests alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from polarjax.core import FORMAT_VERSION, CheckpointError, PyTree
from polarjax.engine.state import TrainState, flatten, nest, to_host

FOLDER = "checkpoints"
FIELDS = ("step", "params", "target_params", "model_state", "opt_state", "rng")


class DamagedCheckpoint(CheckpointError):
    """The files of a checkpoint are not what was written."""


def pack(state: TrainState, meta: dict[str, Any]) -> tuple[PyTree, dict[str, Any]]:
    """Copies a state to the host and completes its meta with the step and the digests."""
    leaves = flatten(to_host({name: getattr(state, name) for name in FIELDS}))
    digests = {path: _digest(leaf) for path, leaf in leaves.items()}
    meta = {"format_version": FORMAT_VERSION, **meta, "step": int(leaves["step"]), "digests": digests}
    return nest(leaves), {**meta, "digest": _digest_of_meta(meta)}


def checkpoint_folder(workdir: str | Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return Path(workdir) / FOLDER / str(step)


def read_meta(workdir: str | Path, step: int) -> dict[str, Any]:
    """Reads the JSON of a checkpoint.

    Raises:
      DamagedCheckpoint: it is missing, unreadable or does not match its digest.
      CheckpointError: it has another format version.
    """
    try:
        path = checkpoint_folder(workdir, step) / "meta" / "metadata"
        meta = json.loads(path.read_text(encoding="utf-8"))
        claimed = meta.pop("digest")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(workdir, step, f"its meta is unreadable ({error})") from None
    if claimed != _digest_of_meta(meta):
        raise _damaged(workdir, step, "its meta does not match its digest")
    if meta["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{checkpoint_folder(workdir, step)} has format version {meta['format_version']}, this program reads "
            f"{FORMAT_VERSION}; use the program that wrote it (git commit {meta['git_commit'] or 'unknown'})"
        )
    return meta


def read(workdir: str | Path, step: int) -> tuple[TrainState, dict[str, Any]]:
    """Reads one checkpoint and compares every array with its digest.

    Raises:
      DamagedCheckpoint: naming the folder, the step and the damage.
      CheckpointError: it has another format version.
    """
    meta = read_meta(workdir, step)
    try:
        leaves = _read_arrays(checkpoint_folder(workdir, step) / "state", meta["digests"])
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _damaged(workdir, step, f"its arrays are unreadable ({reason})") from None
    for path, digest in meta["digests"].items():
        if _digest(leaves[path]) != digest:
            raise _damaged(workdir, step, f"{path} does not match its digest")
    empty = {**dict.fromkeys(FIELDS), "model_state": {}, "opt_state": {}}
    return TrainState(**{**empty, **nest(leaves)}), meta


def _read_arrays(folder: Path, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads with TensorStore alone: no devices, no barrier between processes, plain errors."""
    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    opened = {
        path: tensorstore.open(
            {
                "driver": "zarr",
                "kvstore": {"driver": "ocdbt", "base": base, "path": path.replace("/", ".") + "/"},
            },
            read=True,
            open=True,
        )
        for path in paths
    }
    reading = {path: future.result().read() for path, future in opened.items()}
    return {path: np.asarray(future.result()) for path, future in reading.items()}


def _damaged(workdir: str | Path, step: int, damage: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        f"{checkpoint_folder(workdir, step)}: step {step} is damaged, {damage}; "
        "bring the folder back from a copy, or use another step"
    )


def _digest(leaf: np.ndarray) -> str:
    described = f"{leaf.dtype}{leaf.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(leaf).tobytes()).hexdigest()


def _digest_of_meta(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
