"""The processes of one run: how they find each other, and how they leave together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import multihost

from polarjax.core import ConfigError

FLAGS = ("coordinator_address", "num_processes", "process_id")
ALL_OF_THEM = ", ".join("--" + name for name in FLAGS)
REPORT_HOURS = 24


def initialize_distributed(flags: Mapping[str, str]) -> None:
    """Joins the processes of one run; does nothing for a single process.

    Args:
      flags: may hold coordinator_address ('host:port'), num_processes and process_id, all three or none; the process
        then holds all devices that it sees. Without them the tasks of a SLURM job step, the processes of mpirun and
        those of a TPU pod whose environment names its hosts find each other, and with 'distributed' those of
        every cluster that JAX knows; under SLURM and mpirun each holds one GPU.

    Raises:
      ConfigError: some of the three flags are missing or are no numbers in range, or the others do not answer.
    """
    place: dict[str, Any] = {}
    if any(flags.get(name) for name in FLAGS):
        place = _explicit_place(flags)
    elif int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        place = {"cluster_detection_method": "ompi"}  # mpirun may run inside SLURM
    elif "distributed" not in flags and not _several_processes_announced():
        return
    try:
        jax.distributed.initialize(**place)
    except (ValueError, RuntimeError, ImportError, LookupError) as error:
        raise ConfigError(
            f"the processes of this run cannot join ({' '.join(str(error).split())[:200]}): start all of them, and "
            f"where JAX does not find them by itself give each {ALL_OF_THEM}"
        ) from error


def _explicit_place(flags: Mapping[str, str]) -> dict[str, Any]:
    given = [name for name in FLAGS if flags.get(name)]
    missing = [name for name in FLAGS if name not in given]
    if missing:
        raise ConfigError(f"--{given[0]} needs --{missing[0]} too; give all of {ALL_OF_THEM}")
    try:
        count, index = int(flags["num_processes"]), int(flags["process_id"])
    except ValueError as error:
        raise ConfigError(f"--num_processes and --process_id must be whole numbers: {error}") from None
    if not 0 <= index < count:
        raise ConfigError(f"--process_id is {index}, it must be in [0, {count}), below --num_processes")
    address = flags["coordinator_address"]
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        # The cluster around is not asked: it would take all GPUs but one from the process.
        "cluster_detection_method": "deactivate",
        "coordinator_bind_address": address if index == 0 else None,
    }


def _several_processes_announced() -> bool:
    # A batch script has SLURM_NTASKS too; only the tasks that srun starts have a step.
    in_slurm_step = "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return in_slurm_step or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def check_joined() -> None:
    """Checks that all processes whose devices JAX sees have joined.

    Raises:
      ConfigError: they have not, as on a TPU pod: a signal would stop one process, and the others would wait for it.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ConfigError(
            f"JAX sees the devices of {jax.process_count()} processes, which have not joined: add --distributed to "
            "the line of each"
        )


def describe_processes(used: int) -> list[str]:
    """Returns lines on the devices and processes of a run, where there are several or GPUs of SLURM stay idle.

    Args:
      used: number of devices that the run uses.
    """
    lines, count = [], jax.process_count()
    if count > 1:
        lines.append(f"{used} devices of {count} processes are used")
    nodes = os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_JOB_NUM_NODES") or "1"
    allocated = int(os.environ.get("SLURM_GPUS_ON_NODE") or "0") * int(nodes)
    if jax.default_backend() == "gpu" and jax.device_count() < allocated:
        lines.append(
            f"warning: {jax.device_count()} of {allocated} GPUs of this SLURM job are seen; start one task a GPU: "
            f"srun --ntasks-per-node={os.environ['SLURM_GPUS_ON_NODE']}"
        )
    return lines


def wait_for_processes() -> None:
    """Waits until all processes are here, up to a day, so that none ends the run while another still works.

    No device takes part: a collective on devices gives up after half a minute.
    """
    multihost.get_barrier_sync_fn()(
        key="polarjax: every process is done", timeout_ms=REPORT_HOURS * 3_600_000
    )
