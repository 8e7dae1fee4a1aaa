"""Devices and processes: one mesh, replicated state, batches split along their leading axis."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from polarjax.core import ConfigError, PyTree

FLAGS = ("coordinator_address", "num_processes", "process_id")


def initialize_distributed(flags: Mapping[str, str]) -> None:
    """Joins the processes of one run; does nothing for a single process.

    Args:
      flags: may hold coordinator_address ('host:port'), num_processes and process_id, all three or none.
        Without them the processes of a SLURM job step or of a TPU pod find each other.

    Raises:
      ConfigError: some of the three flags are missing or are no numbers in range.
    """
    given = [name for name in FLAGS if flags.get(name)]
    if given:
        address, count, index = _explicit_processes(flags, given)
        bound = address if index == 0 else None
        jax.distributed.initialize(address, count, index, coordinator_bind_address=bound)
    elif _several_processes_announced():
        jax.distributed.initialize()


def _explicit_processes(flags: Mapping[str, str], given: list[str]) -> tuple[str, int, int]:
    missing = [name for name in FLAGS if name not in given]
    if missing:
        raise ConfigError(
            f"--{given[0]} needs --{missing[0]} too; give all of {', '.join('--' + f for f in FLAGS)}"
        )
    try:
        count, index = int(flags["num_processes"]), int(flags["process_id"])
    except ValueError as error:
        raise ConfigError(f"--num_processes and --process_id must be whole numbers: {error}") from None
    if not 0 <= index < count:
        raise ConfigError(f"--process_id is {index}, it must be in [0, {count}), below --num_processes")
    return flags["coordinator_address"], count, index


def _several_processes_announced() -> bool:
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return True
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def make_mesh() -> Mesh:
    """Returns one axis, 'data', over all devices of all processes."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, *, devices: int, sessions: int, accumulate: int) -> None:
    """Checks that micro-batches can be shared by the devices and keep the order of the sessions.

    Raises:
      ConfigError: with the nearest sizes that work.
    """
    unit = accumulate * math.lcm(devices, sessions)
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        nearest = f"{below} and {above}" if below else f"{above}"
        raise ConfigError(
            f"config.data.batch_size is {batch_size}, which {devices} devices, {sessions} sessions and "
            f"config.optim.accumulate = {accumulate} cannot share: it must be a multiple of {unit}; "
            f"the nearest valid sizes are {nearest}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch [B, ..]: each device holds its rows."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies host arrays, equal in all processes, to every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, leaf.shape), tree)


def put_request(request: PyTree, mesh: Mesh, micro_batches: int = 1) -> PyTree:
    """Sends a request [B, ..] to the devices as [K, B/K, ..], each device getting its rows of each micro-batch.

    Args:
      request: host arrays of the global batch, equal in all processes; each process hands over its rows.
      micro_batches: K, of contiguous rows.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def put(leaf):
        leaf = leaf.reshape(micro_batches, leaf.shape[0] // micro_batches, *leaf.shape[1:])
        return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)

    return jax.tree.map(put, request)
