"""The folder of a run: one writer at a time, one config, one data set."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax

from polarjax.core import CheckpointError, ConfigError, DataError, DataInfo
from polarjax.engine.agreement import fail_together, gather
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
def claim(workdir: Path, *, break_lock: bool = False) -> Iterator[None]:
    """Makes the folder and holds its lock; the kernel releases it however the process ends.

    Args:
      workdir: folder of the run.
      break_lock: take it from a process that is gone, as after the crash of another machine whose lock a network file
        system keeps, and go on without a lock where the file system has none.

    Raises:
      CheckpointError: the folder cannot be made or written, another process holds it, or it cannot be locked.
    """
    with contextlib.ExitStack() as held:
        with fail_together():
            if jax.process_index() == 0:
                held.enter_context(_lock(workdir, break_lock))
        yield


def _lock(workdir: Path, break_lock: bool) -> BinaryIO:
    """Returns the lock file, locked, with the name of this process in it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / LOCK, "a+b", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise CheckpointError(
            f"--workdir {workdir} cannot be written ({error.strerror}); choose a folder that you may write"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        with lock:
            _refuse_holder(workdir, lock, break_lock)
        # The lock of the process that is gone stays with the file that had the name.
        (workdir / LOCK).unlink(missing_ok=True)
        return _lock(workdir, break_lock=False)
    except OSError as error:
        if not break_lock:
            lock.close()
            raise CheckpointError(
                f"--workdir {workdir} is on a file system without locks ({error.strerror}), and two runs in one folder "
                "destroy each other's checkpoints: choose a --workdir elsewhere, or, where no other run uses this one, "
                "add --break-lock to go on without"
            ) from None
    with contextlib.suppress(OSError):  # on a full disk the name is missing, and the lock holds all the same
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _refuse_holder(workdir: Path, lock: BinaryIO, break_lock: bool) -> None:
    """Raises, naming the process that holds a folder and for how long, unless it is to be broken and may be gone."""
    lock.seek(0)
    holder = lock.read().decode(errors="replace").strip()
    lives = _lives_here(holder)
    if break_lock and not lives:
        return
    age = datetime.timedelta(seconds=round(max(time.time() - os.fstat(lock.fileno()).st_mtime, 0.0)))
    gone = "" if lives else "; if that process is gone, as after a crash of its machine, add --break-lock"
    raise CheckpointError(
        f"--workdir {workdir} is in use by {holder or 'another process'} for {age}; "
        f"wait for it or choose another --workdir{gone}"
    )


def _lives_here(holder: str) -> bool:
    """Tells whether 'process 12 on name' is a process of this machine."""
    words = holder.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def refuse_unlike_processes(run: dict[str, Any]) -> None:
    """Compares what the processes of one run were started with.

    Args:
      run: from `describe_run`, of this process.

    Raises:
      ConfigError: another config in one of them, each difference with both values.
      DataError: other sessions, or a session whose arrays are not the same everywhere.
    """
    first, *others = gather({"config": flat_config(run["config"]), "data": _fingerprints(run)})
    for index, other in enumerate(others, 1):
        if names := _different(first["config"], other["config"]):
            listed = "; ".join(
                f"config.{name} is {first['config'].get(name, ABSENT)!r} in process 0 and "
                f"{other['config'].get(name, ABSENT)!r} in process {index}"
                for name in names
            )
            raise ConfigError(f"the processes have different configs: {listed}; start all with the same line")
        if names := _different(first["data"], other["data"]):
            raise DataError(
                f"session {', '.join(map(repr, names))} of process {index} is not what process 0 reads; give all "
                "machines the same session folders"
            )


def agree_on_run(config: Any, info: DataInfo) -> dict[str, Any]:
    """Returns what `describe_run` does, once all processes of the run have the same.

    Raises:
      ConfigError, DataError: they have not; see `refuse_unlike_processes`.
    """
    run = describe_run(config, info)
    refuse_unlike_processes(run)
    return run


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
    with fail_together():
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
        {
            "step": saved["step"],
            "name": name,
            "before": before.get(name, ABSENT),
            "after": after.get(name, ABSENT),
        }
        for name in _different(before, after)
        if name not in FREE
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
    changed = _different(_fingerprints(saved), _fingerprints(current))
    if changed:
        raise DataError(
            f"the data of the run in {workdir} have changed: session {', '.join(map(repr, changed))} is not what the "
            "run started with; bring the session back, or choose another --workdir"
        )
    return different


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns {'train.num_steps': value} of a saved config; one of before there was init_from started afresh."""
    return {"init_from": "", **flat_section(config)}


def _fingerprints(run: dict[str, Any]) -> dict[str, str]:
    return {session["name"]: session["fingerprint"] for session in run["info"]["sessions"]}


def _different(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return sorted(
        name for name in left.keys() | right.keys() if left.get(name, ABSENT) != right.get(name, ABSENT)
    )


def _git_commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
