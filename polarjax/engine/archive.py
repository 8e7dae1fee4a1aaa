"""The format of one checkpoint: arrays with a digest each, and JSON that has one too; read without JAX.

`<workdir>/checkpoints/<step>/state` holds the arrays (Orbax) in nested dicts named as in TrainState;
`<workdir>/checkpoints/<step>/meta/metadata` holds JSON: format_version, config, info, versions, git_commit,
step, metrics, tally, patience, ended, digests {path: sha256} and the digest of all these.

Orbax writes files beside these that nothing here reads: _METADATA, _CHECKPOINT_METADATA, commit_success.txt and the
manifests of single processes. Damage of one of them is not reported, and cannot be harmful: which arrays there are,
and that every value is the one that was saved, is known from the digests alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polarjax.core import FORMAT_VERSION, CheckpointError
from polarjax.engine.array_files import files_of, read_arrays
from polarjax.engine.storage import sync_folder

FOLDER = "checkpoints"
ASIDE = "corrupt-"


class DamagedCheckpoint(CheckpointError):
    """The files of a checkpoint are not what was written."""


class Contents(NamedTuple):
    """What was found in the files of one checkpoint.

    Attributes:
      leaves: {path: array}, as in 'params/core/kernel', of what can be read.
      digests: {path: sha256} of these, computed again.
      problems: {path: what is wrong, with the file}; empty for an intact checkpoint.
    """

    leaves: dict[str, np.ndarray]
    digests: dict[str, str]
    problems: dict[str, str]


def seal(leaves: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Completes the meta of a checkpoint with the step, the digests of its arrays and its own."""
    digests = {path: digest(leaf) for path, leaf in leaves.items()}
    full = {"format_version": FORMAT_VERSION, **meta, "step": int(leaves["step"]), "digests": digests}
    return {**full, "digest": digest_of_json(full)}


def digest(leaf: np.ndarray) -> str:
    """Returns the sha256 of an array's dtype, shape and values (C order)."""
    described = f"{leaf.dtype}{leaf.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(leaf).tobytes()).hexdigest()


def checkpoint_folder(workdir: str | Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return Path(workdir) / FOLDER / str(step)


def list_steps(workdir: str | Path) -> list[int]:
    """Returns the steps that have a checkpoint, ascending; [] where there is none."""
    return _numbers(Path(workdir) / FOLDER, "")


def list_set_aside(workdir: str | Path) -> list[int]:
    """Returns the steps whose damaged checkpoint a later run has set aside."""
    return _numbers(Path(workdir) / FOLDER, ASIDE)


def choose_step(workdir: str | Path, step: int | str | None = None) -> int:
    """Returns the step that is meant, which has a checkpoint.

    Args:
      workdir: folder of the run.
      step: a step; 'latest' or None for the newest; 'best' for the highest config.train.best_metric (the
        newest where none was evaluated).

    Raises:
      CheckpointError: no such folder or step.
    """
    if not Path(workdir).is_dir():
        raise CheckpointError(
            f"work directory {workdir} does not exist; expected the directory that train.py --workdir was given"
        )
    steps = list_steps(workdir)
    if not steps:
        raise CheckpointError(f"{workdir} holds no checkpoint; is it the --workdir of a run?")
    if step == "best":
        step = best_step(workdir)
    chosen = steps[-1] if step in (None, "latest") else step
    if chosen not in steps:
        raise CheckpointError(
            f"{workdir} holds no checkpoint of step {step}; it has {', '.join(map(str, steps))}"
        )
    return int(chosen)


def best_step(workdir: str | Path) -> int | None:
    """Returns the step with the highest config.train.best_metric, of equal ones the newest; None without one."""
    ranked = [
        (value, step) for step in list_steps(workdir) if (value := metric_of(workdir, step)) is not None
    ]
    return max(ranked)[1] if ranked else None


def metric_of(workdir: str | Path, step: int, metric: str | None = None) -> float | None:
    """Returns the metric of a checkpoint (by default the one that its config ranks by); None without a finite one."""
    try:
        meta = read_meta(workdir, step)
    except CheckpointError:
        return None
    return finite(meta["metrics"].get(metric or meta["config"]["train"]["best_metric"]))


def finite(value: float | None) -> float | None:
    """Returns what can be ranked: None for NaN, as of a run without spikes, and for infinities."""
    return value if value is not None and math.isfinite(value) else None


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
        raise damaged(workdir, step, f"its meta is unreadable ({error})") from None
    if claimed != digest_of_json(meta):
        raise damaged(workdir, step, "its meta does not match its digest")
    if meta["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{checkpoint_folder(workdir, step)} has format version {meta['format_version']}, this program reads "
            f"{FORMAT_VERSION}; use the program that wrote it (git commit {meta['git_commit'] or 'unknown'})"
        )
    return meta


def replace_meta(workdir: str | Path, step: int, meta: Mapping[str, Any]) -> None:
    """Replaces the JSON of a checkpoint whose arrays stay, at once and on the disk: a kill leaves the old or the new.

    Args:
      workdir: folder of the run.
      step: which checkpoint.
      meta: from `seal`, of the same arrays.
    """
    path = checkpoint_folder(workdir, step) / "meta" / "metadata"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(meta), encoding="utf-8")
    sync_folder(path.parent)
    os.replace(fresh, path)
    sync_folder(path.parent)


def read_contents(workdir: str | Path, step: int, meta: Mapping[str, Any]) -> Contents:
    """Reads all arrays of a checkpoint and compares each with its digest; damage is told, not raised.

    Args:
      workdir: folder of the run.
      step: which checkpoint.
      meta: from `read_meta`.
    """
    folder = checkpoint_folder(workdir, step) / "state"
    leaves, unreadable = read_arrays(folder, meta["digests"])
    digests = {path: digest(leaf) for path, leaf in leaves.items()}
    problems = {}
    for path, expected in meta["digests"].items():
        if digests.get(path) != expected:
            files = ", ".join(str(file.relative_to(folder.parent)) for file in files_of(folder, path))
            problems[path] = (
                f"its arrays are unreadable ({path} in {files}: {unreadable[path]})"
                if path in unreadable
                else f"{path} does not match its digest ({files})"
            )
    return Contents(leaves, digests, problems)


def damaged(workdir: str | Path, step: int, damage: str) -> DamagedCheckpoint:
    """Words the error about a checkpoint that is not what was written."""
    return DamagedCheckpoint(
        f"{checkpoint_folder(workdir, step)}: step {step} is damaged, {damage}; "
        "bring the folder back from a copy, or use another step"
    )


def _numbers(folder: Path, prefix: str) -> list[int]:
    if not folder.is_dir():
        return []
    names = [entry.name.removeprefix(prefix) for entry in folder.iterdir() if entry.name.startswith(prefix)]
    return sorted(int(name) for name in names if name.isdecimal())


def digest_of_json(values: Mapping[str, Any]) -> str:
    """Returns the sha256 of JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
