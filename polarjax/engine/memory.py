"""Whether a compiled step fits the memory of the device, known before it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from polarjax.core import ConfigError

REMEDY = "lower config.data.batch_size, or raise config.optim.micro_batches"


def needed_bytes(compiled: Any) -> int | None:
    """Returns what one device holds while the program runs; None where the backend does not tell."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    held = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return held - found.alias_size_in_bytes


def check_memory(compiled: Any, device: Any, batch_size: int) -> str:
    """Compares the needs of a program with its device (a `jax.Device`).

    Returns:
      One line for the log.

    Raises:
      ConfigError: it does not fit.
    """
    needed, stats = needed_bytes(compiled), device.memory_stats()
    if needed is None:
        return "the memory of a step is not known"
    if not stats or "bytes_limit" not in stats:
        return f"a step needs {needed / 1e9:.2f} GB"
    limit = stats["bytes_limit"]
    if needed > limit:
        raise ConfigError(
            f"a step of config.data.batch_size = {batch_size} needs {needed / 1e9:.2f} GB and {device.device_kind} has "
            f"{limit / 1e9:.2f} GB; {REMEDY}"
        )
    return f"a step needs {needed / 1e9:.2f} GB of {limit / 1e9:.2f} GB"


@contextlib.contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Turns the runtime's report of exhausted memory into one line.

    Raises:
      ConfigError: with the batch size, and what to do.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"config.data.batch_size = {batch_size} does not fit the device ({reason}); {REMEDY}"
        ) from error
