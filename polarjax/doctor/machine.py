"""The devices, the memory and the storage of a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from polarjax.core import CheckpointError, ConfigError
from polarjax.doctor.findings import OK, WARN, Finding, failure, one_line

LEAST_MEMORY_GB = 2.0
LEAST_DISK_GB, ENOUGH_DISK_GB = 0.1, 2.0
PROBE_BYTES = 2**20
CGROUP = Path("/sys/fs/cgroup")


def check_devices() -> Iterator[Finding]:
    """Compares the devices that JAX uses with the GPUs that the driver sees."""
    import jax

    gpus, chosen = find_gpus(), os.environ.get("JAX_PLATFORMS", "")
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where its plugin is not installed
        remedy = f"unset JAX_PLATFORMS, which is {chosen!r}" if chosen else "see docs.jax.dev/installation"
        yield failure("devices", ConfigError, f"JAX finds no device ({one_line(error)})", remedy)
        return
    text = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} cores"
    if not gpus or devices[0].platform != "cpu":
        yield Finding("devices", OK, text)
    elif chosen:
        remedy = "unset JAX_PLATFORMS to train on the GPU"
        yield Finding("devices", WARN, f"{text}; JAX_PLATFORMS={chosen} hides {gpus}", remedy)
    else:
        remedy = "make clean env (in a clone), or pip install -e '.[cuda]'"
        yield failure("devices", ConfigError, f"{text}, but nvidia-smi lists {gpus}", remedy)


def find_gpus() -> str:
    """Returns what nvidia-smi lists, in one line; '' where there is no GPU or no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    names = [line.split(" (UUID")[0] for line in done.stdout.splitlines()]
    return ", ".join(names) if done.returncode == 0 else ""


def check_memory() -> Iterator[Finding]:
    """Compares the memory that is available with what a quick run should have (its train step takes 1.2 GB)."""
    available = available_memory_gb()
    text = f"{available:.1f} GB available"
    if available >= LEAST_MEMORY_GB:
        yield Finding("memory", OK, text)
        return
    remedy = "end other programs, or train with a smaller --config.data.batch_size"
    yield Finding("memory", WARN, f"{text}, a quick run should have {LEAST_MEMORY_GB:g} GB", remedy)


def available_memory_gb() -> float:
    """Returns the memory that this process may still take: of the machine, or of its container where that is less."""
    import psutil

    available = psutil.virtual_memory().available
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or 'max': no limit
        return available / 1e9
    return max(min(available, limit - used), 0) / 1e9


def check_storage(workdir: Path) -> Iterator[Finding]:
    """Writes a file where the runs will lie, and looks at the free space there."""
    folder = workdir.absolute()
    while not folder.exists():
        folder = folder.parent
    remedy = "choose another --workdir"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        reason = error.strerror or one_line(error)
        yield failure("workdir", CheckpointError, f"{workdir}: {folder} cannot be written ({reason})", remedy)
        return
    text = f"{workdir} can be written, {free:.1f} GB free"
    if free < LEAST_DISK_GB:
        yield failure(
            "workdir", CheckpointError, f"{text}, a run needs {LEAST_DISK_GB:g}", f"free space, or {remedy}"
        )
    elif free < ENOUGH_DISK_GB:
        yield Finding("workdir", WARN, f"{text}, little for the checkpoints of a full model", remedy)
    else:
        yield Finding("workdir", OK, text)


def check_cache() -> Iterator[Finding]:
    """Writes a file where compiled programs are kept; without it every run compiles again."""
    from polarjax.engine import compilation

    try:
        yield Finding("cache", OK, f"compiled programs are kept in {compilation.make_cache_folder()}")
    except OSError as error:
        text = (
            f"{compilation.cache_folder()} cannot be written ({error.strerror}), so every run compiles again"
        )
        yield Finding("cache", WARN, text, "set XDG_CACHE_HOME to a folder that you may write")
