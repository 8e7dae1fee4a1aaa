"""The folder of a run: one writer at a time, one config, one data set."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax

from polarjax.core import CheckpointError, ConfigError, DataError, DataInfo
from polarjax.engine.storage import storage_errors
from polarjax.engine.validation import flat_section

LOCK = "lock"
FREE = (
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.keep_latest",
    "train.keep_best",
    "train.floor_steps",
    "train.watchdog_minutes",
)
ABSENT = "absent"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes the folder and holds its lock; the kernel releases it however the process ends.

    Raises:
      CheckpointError: the folder cannot be made or written, or another process holds it.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise CheckpointError(
            f"--workdir {workdir} cannot be written ({error.strerror}); choose a folder that you may write"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise CheckpointError(
                f"--workdir {workdir} is in use by {lock.read().strip() or 'another process'}; "
                "wait for it or choose another --workdir"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def describe_run(config: Any, info: DataInfo) -> dict[str, Any]:
    """Returns what every checkpoint keeps of the run, as JSON values: config, info, versions, git_commit."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return json.loads(
        json.dumps(
            {
                "config": config.to_dict(),
                "info": dataclasses.asdict(info),
                "versions": {"python": platform.python_version(), **versions},
                "git_commit": _git_commit(),
            }
        )
    )


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Writes config.json, for people; a restored run reads its checkpoint."""
    if jax.process_index() == 0:
        fresh = workdir / "config.json.tmp"
        with storage_errors(workdir / "config.json", "the config"):
            fresh.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            os.replace(fresh, workdir / "config.json")


def refuse_other_run(
    workdir: Path, saved: dict[str, Any], current: dict[str, Any], allowed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Compares what the checkpoints of a folder keep with the run that wants to continue there.

    Args:
      workdir: folder of the run.
      saved: meta of its checkpoint.
      current: from `describe_run`.
      allowed: names of config values that may differ, as in 'optim.clip_norm'.

    Returns:
      What differs and is allowed, one {step, name, before, after} each.

    Raises:
      ConfigError: another config, each difference with both values.
      DataError: other sessions, or a session whose arrays have changed.
    """
    before, after = flat_config(saved["config"]), flat_config(current["config"])
    different = [
        {"step": saved["step"], "name": name, "before": left, "after": right}
        for name in sorted(set(before) | set(after))
        if (left := before.get(name, ABSENT)) != (right := after.get(name, ABSENT)) and name not in FREE
    ]
    refused = [change for change in different if change["name"] not in allowed]
    if refused:
        listed = "; ".join(
            f"config.{change['name']} is {change['before']!r} there and {change['after']!r} here"
            for change in refused
        )
        names = ",".join(change["name"] for change in refused)
        raise ConfigError(
            f"--workdir {workdir} holds a run of another config: {listed}. Choose another --workdir, set the values "
            f"back to continue that run, or continue it with the new ones by --allow-config-change {names}"
        )
    before, after = (
        {session["name"]: session["fingerprint"] for session in run["info"]["sessions"]}
        for run in (saved, current)
    )
    changed = sorted(name for name in set(before) | set(after) if before.get(name) != after.get(name))
    if changed:
        raise DataError(
            f"the data of the run in {workdir} have changed: session {', '.join(map(repr, changed))} is not what the "
            "run started with; bring the session back, or choose another --workdir"
        )
    return different


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns {'train.num_steps': value} of a saved config; one of before there was init_from started afresh."""
    return {"init_from": "", **flat_section(config)}


def _git_commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
