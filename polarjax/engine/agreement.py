"""What the processes of one run have to agree on before they go on together; with one process nothing happens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from polarjax.core import CheckpointError, PolarjaxError


def gather(value: Any) -> list[Any]:
    """Returns the JSON value of every process, in their order, once all processes have called this."""
    if jax.process_count() == 1:
        return [value]
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray([content.size], np.int32)).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Ends every process where what runs inside fails in one of them, for which the others would wait.

    Raises:
      PolarjaxError: the error of this process.
      CheckpointError: that of another one, with its number.
    """
    error = None
    try:
        yield
    except PolarjaxError as caught:
        error = caught
    told = gather(error and str(error))
    if error is not None:
        raise error
    for index, text in enumerate(told):
        if text is not None:
            raise CheckpointError(f"process {index} could not begin, so none does: {text}")


def begin_together(workdir: Path, begin: str, damages: list[str]) -> None:
    """Compares the checkpoints that the processes would go on from.

    Args:
      workdir: folder of the run.
      begin: the one that this process has found, in words that are equal for equal checkpoints.
      damages: what is wrong with those that it has passed over.

    Raises:
      CheckpointError: they are not the same; names that of every process.
    """
    begins = gather([begin, damages])
    if any(other != begin for other, _ in begins):
        listed = "; ".join(
            f"process {index} from {other}" + "".join(f" ({damage})" for damage in passed_over)
            for index, (other, passed_over) in enumerate(begins)
        )
        raise CheckpointError(
            f"the processes do not find the same checkpoint in {workdir} to go on from: {listed}. Give all of them a "
            "--workdir that their machines share, see that each can read it, and run the same line again"
        )


def start_together(folder: str, source: Mapping[str, Any] | None) -> None:
    """Compares what the processes copy from another run.

    Args:
      folder: config.init_from.
      source: `warm_start.Start.record`, of this process.

    Raises:
      CheckpointError: they do not copy the same values; names the step that every process has found.
    """
    copied = gather(source and [source["step"], source["digest"]])
    if any(other != copied[0] for other in copied):
        listed = ", ".join(
            f"process {index} finds step {step} (sha256 {digest[:8]})"
            for index, (step, digest) in enumerate(copied)
        )
        raise CheckpointError(
            f"config.init_from {folder} is not the same everywhere: {listed}. Give all machines the same folder, best "
            "on a file system that they share"
        )
