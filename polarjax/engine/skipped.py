"""Steps that were not finite: which segments their batches held, told and kept, so that they can be looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from polarjax.core import Data
from polarjax.engine.tally import SKIPPED_STEPS, Tally
from polarjax.engine.writer import Writer

SHOWN = 3  # sessions, and segments of each, in the line that is printed


def make_count(
    tally: Tally, data: Data, workdir: Path, writer: Writer, max_skipped: int
) -> Callable[[int, Mapping[str, Any] | None], None]:
    """Returns (step, scalars of the train step or None) -> None, which waits for the scalars and counts the step.

    Of a step that was not finite the request is made again, and a line is added to skipped_steps.jsonl: the step, the
    last good one, and for each session the first frames of its segments; for a batch that several processes read, of
    those of the first process. It raises what `Tally.add` does, after that.
    """
    names = [session.name for session in data.info.sessions]

    def count(step: int, scalars: Mapping[str, Any] | None) -> None:
        if scalars is None:
            return
        found = jax.device_get(scalars)
        if not found["finite"] and jax.process_index() == 0:
            segments = segments_of(data.train(step - 1), names)
            fields = {"step": step, "last_good": tally.last_good, "segments": segments}
            kept = _keep(workdir / SKIPPED_STEPS, fields)
            writer.say(
                f"step {step}: the loss or its gradient is not finite, nothing was updated ({tally.in_a_row + 1} in a "
                f"row); its segments begin at {_shown(segments)}; {kept}"
            )
        tally.add(step, found, max_skipped=max_skipped)

    return count


def segments_of(request: Mapping[str, Any], sessions: Sequence[str]) -> dict[str, list[int]]:
    """Returns {session: first frames of its segments} of a request, whose row i is of session i % S."""
    start = np.asarray(request["start"])
    return {name: start[index :: len(sessions)].tolist() for index, name in enumerate(sessions)}


def _keep(path: Path, fields: Mapping[str, Any]) -> str:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}), free the storage to keep all of them"
    return f"all of them are in {path}"


def _shown(segments: Mapping[str, Sequence[int]]) -> str:
    parts = [
        f"frames {', '.join(map(str, frames[:SHOWN]))}{' ..' * (len(frames) > SHOWN)} of {name}"
        for name, frames in list(segments.items())[:SHOWN]
    ]
    return "; ".join(parts) + f" and {len(segments) - SHOWN} more sessions" * (len(segments) > SHOWN)
