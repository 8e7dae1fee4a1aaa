"""Devices and processes: one mesh, replicated state, whole micro-batches on every device, one sum over all."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from polarjax.core import ConfigError, PyTree
from polarjax.engine.processes import check_joined, describe_processes

AXIS = "data"


def use_cores(micro_batches: int) -> None:
    """Makes a device of each CPU core, as far as cores share the micro-batches; for a run of one process.

    A device works mostly on one core, so on CPUs several are faster; the bits are the same. Does nothing where
    XLA_FLAGS says how many devices there are, over several processes, or where JAX has its devices already.
    """
    if (
        "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
        or jax.distributed.is_initialized()
    ):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count_devices(micro_batches, devices=cores, processes=1))


def find_devices() -> list[jax.Device]:
    """Returns the devices of all processes, those of a process side by side.

    Raises:
      ConfigError: JAX cannot start the platform that the environment asks for.
    """
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where not even the plugin is installed
        chosen, reason = os.environ.get("JAX_PLATFORMS", ""), " ".join(str(error).split())[:200]
        wanted = f"JAX_PLATFORMS is {chosen!r}, and JAX" if chosen else "JAX"
        raise ConfigError(
            f"{wanted} finds no such device here ({reason or 'its plugin is not installed'}); found are "
            f"{os.cpu_count()} CPU cores: set JAX_PLATFORMS=cpu to use them, or see what python -m polarjax.doctor says"
        ) from error
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def make_mesh(micro_batches: int) -> Mesh:
    """Returns one axis, 'data', over the devices of a run, those of a process side by side as its rows are.

    Raises:
      ConfigError: there is no device, or several processes have not joined or cannot share the micro-batches; see
        `count_devices`.
    """
    devices = find_devices()
    check_joined()
    count = count_devices(micro_batches, devices=len(devices), processes=jax.process_count())
    return Mesh(np.asarray(devices[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def count_devices(micro_batches: int, *, devices: int, processes: int) -> int:
    """Returns how many of the devices a run uses: in one process the most that share its micro-batches evenly.

    Raises:
      ConfigError: several processes, and not all devices can be used; with the nearest numbers that work.
    """
    if processes > 1 and micro_batches % devices:
        raise ConfigError(
            f"config.optim.micro_batches is {micro_batches}, which {devices} devices of {processes} processes cannot "
            f"share: each computes whole ones, so it must be a multiple of {devices}; "
            f"{_nearest(micro_batches, devices)}"
        )
    return next(count for count in range(devices, 0, -1) if micro_batches % count == 0)


def describe_mesh(mesh: Mesh, micro_batches: int) -> list[str]:
    """Returns lines on the devices of a run, where they are of several processes or some stay idle."""
    idle = jax.device_count() > mesh.size
    counts = f"{mesh.size} of {jax.device_count()} devices are used"
    lines = [f"{counts}: config.optim.micro_batches is {micro_batches}"] if idle else []
    return lines + describe_processes(mesh.size)


def check_sharing(batch_size: int, *, micro_batches: int, sessions: int) -> None:
    """Checks that every micro-batch holds as many segments of every session.

    Raises:
      ConfigError: with the nearest numbers that work.
    """
    unit = micro_batches * sessions
    if batch_size % unit:
        raise ConfigError(
            f"config.data.batch_size is {batch_size}, which config.optim.micro_batches = {micro_batches} of "
            f"{sessions} sessions cannot share: it must be a multiple of {unit}; {_nearest(batch_size, unit)}"
        )


def _nearest(value: int, unit: int) -> str:
    below, above = value // unit * unit, (value // unit + 1) * unit
    return (
        f"the nearest valid values are {below} and {above}"
        if below
        else f"the nearest valid value is {above}"
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copies host arrays, equal in all processes, to every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, leaf.shape), tree)


def put_request(request: PyTree, mesh: Mesh, *, batch_size: int, micro_batches: int) -> PyTree:
    """Sends a request to the devices as [K, B/K, ..]: micro-batches of contiguous rows, each whole on one device.

    Args:
      request: host arrays [B, ..] of the global batch, equal in all processes, or the rows [B/P, ..] of this one of P.
      batch_size: B.
      micro_batches: K.
    """
    sharding, rows = NamedSharding(mesh, PartitionSpec(AXIS)), batch_size // micro_batches

    def put(leaf):
        local = leaf.reshape(-1, rows, *leaf.shape[1:])
        return jax.make_array_from_process_local_data(sharding, local, (micro_batches, rows, *leaf.shape[1:]))

    return jax.tree.map(put, request)


def on_every_device(function: Callable[..., Any], mesh: Mesh, *, split: int) -> Callable[..., Any]:
    """Runs a function of replicated values and one request as it stands on every device.

    Args:
      split: which argument is the request [K, B/K, ..]; the function sees the micro-batches of its device.

    Returns:
      The function of global arrays; its results must be equal on all devices.
    """

    def run(*arguments):
        specs = tuple(PartitionSpec(AXIS) if i == split else PartitionSpec() for i in range(len(arguments)))
        # without check_vma JAX adds no sums of its own: what is summed, and when, is written down here
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
        return mapped(*arguments)

    return run


def first_rows(request: PyTree, mesh: Mesh, limit: int) -> PyTree:
    """Gathers the first micro-batches of a request on one device of every process.

    Args:
      request: [K, B/K, ..], from `put_request`.
      limit: largest number of rows, unless one micro-batch has more.
    """
    micro_batches, rows = jax.tree.leaves(request)[0].shape[:2]
    number = min(max(limit // rows, 1), micro_batches)

    def gather(leaf):
        index = jax.lax.axis_index(AXIS) * leaf.shape[0] + jnp.arange(leaf.shape[0])
        slots = jnp.zeros((number, *leaf.shape[1:]), leaf.dtype).at[index].set(leaf, mode="drop")
        return jax.lax.psum(slots, AXIS).reshape(-1, *leaf.shape[2:])

    gathered = jax.jit(on_every_device(functools.partial(jax.tree.map, gather), mesh, split=0))(request)
    return on_one_device(gathered)


def on_one_device(tree: PyTree) -> PyTree:
    """Returns replicated arrays as they lie on the first device of this process; nothing is copied."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def sum_micro_batches(
    function: Callable[..., PyTree], request: PyTree, *, deterministic: bool
) -> tuple[PyTree, int]:
    """Adds a function's results over the micro-batches of all devices, in one all-reduce of one vector.

    A device walks through its micro-batches in a loop whose body is compiled for the shape of one. If
    deterministic, each result has a row of its own in a matrix [K, P] that is 0 elsewhere; adding zeros is exact, so
    after the all-reduce every device holds the same K rows and adds them in the same order. Otherwise
    each device adds its own first, and the last bits depend on how many devices there are.

    Args:
      function: (rows [B/K, ..], number k of the micro-batch, K) -> pytree of P numbers.
      request: the micro-batches of this device; to be called by `on_every_device`.
      deterministic: whether the sum's bits are those of any number of devices, at K times the traffic.

    Returns:
      The sums, equal on every device, and K.
    """
    local = jax.tree.leaves(request)[0].shape[0]
    count, start = local * jax.lax.axis_size(AXIS), jax.lax.axis_index(AXIS) * local
    if (
        local == 1
    ):  # the choice among one would vanish from the program, and what is left be compiled otherwise
        request = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), request)
    once = jax.jit(
        lambda rows, index: function(rows, index, count)
    )  # traced once, for its shapes and the loop
    shapes = jax.eval_shape(once, _row(request, 0), start)
    empty, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    slots = count if deterministic else 1

    def add(index, sums):
        # the index is in the barrier so that nothing behind it is taken for a constant and moved out of the loop
        rows, index = jax.lax.optimization_barrier((_row(request, index - start), index))
        vector = jax.lax.optimization_barrier(ravel_pytree(once(rows, index))[0])
        return sums.at[index % slots].add(vector)

    sums = jax.lax.fori_loop(start, start + local, add, jnp.zeros((slots, *empty.shape), empty.dtype))
    # one device needs no all-reduce: the barrier keeps what follows from being compiled together with the loop
    sums = jax.lax.optimization_barrier(jax.lax.psum(sums, AXIS))
    return unravel(_tree_sum(sums)), count


def _row(request: PyTree, index: Any) -> PyTree:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), request)


def _tree_sum(rows: Shaped[Array, "K P"]) -> Shaped[Array, " P"]:
    """Adds neighbours, then neighbouring sums, and so on."""
    while rows.shape[0] > 1:
        pairs = rows.shape[0] // 2 * 2
        rows = jnp.concatenate([rows[0:pairs:2] + rows[1:pairs:2], rows[pairs:]])
    return rows[0]
