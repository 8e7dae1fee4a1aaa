"""Looks into a work directory and checks a checkpoint, on any machine: without JAX, data or config file.

python -m polarjax.inspect DIR [--step N] [--json]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polarjax.core import CheckpointError, PolarjaxError
from polarjax.engine import archive, history
from polarjax.engine.flags import parse_flags, read_step
from polarjax.engine.validation import flat_section

FLAGS = {
    "dir": "work directory of a run, what train.py --workdir was given; may stand without its name",
    "step": "step of the checkpoint, best or latest (default)",
    "json": "prints one JSON object instead of text",
}
SHOWN = 3  # problems; where one file holds many arrays, its damage is a problem of each
LOSS, BITS = "train/loss", "eval/bits_per_spike"


def main(arguments: list[str]) -> int:
    """Reads the flags, prints what the directory holds and returns the exit code."""
    try:
        flags, _ = parse_flags(arguments, FLAGS, __doc__ or "", positional="dir", switches=("json",))
        step = read_step(flags.get("step", "latest"))
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    try:
        found = look_into(Path(flags["dir"]), step)
    except OSError as error:
        print(
            f"error: {flags['dir']} cannot be read ({error}); choose a folder that you may read",
            file=sys.stderr,
        )
        return CheckpointError.exit_code
    if "json" in flags:
        print(json.dumps(found, allow_nan=False))
    else:
        print("\n".join(describe(found)))
    for problem in found["problems"][:SHOWN]:
        print(f"error: {problem}", file=sys.stderr)
    if len(found["problems"]) > SHOWN:
        print(
            f"error: {len(found['problems']) - SHOWN} more like these; --json lists them all", file=sys.stderr
        )
    return CheckpointError.exit_code if found["problems"] else 0


def look_into(workdir: Path, step: int | str = "latest") -> dict[str, Any]:
    """Reads all that a work directory tells of its run, and checks one checkpoint.

    Args:
      workdir: folder of the run.
      step: of the checkpoint to check, 'best' or 'latest'.

    Returns:
      JSON values: steps, best, set_aside, latest {step, digests, ok}, checkpoint (what `check` returns, of the chosen
      step) and history. 'latest' is checked even where another step is chosen. 'problems' are those of the chosen
      checkpoint, or say why there is none.
    """
    found: dict[str, Any] = {
        "workdir": str(workdir),
        "steps": archive.list_steps(workdir),
        "best": archive.best_step(workdir),
        "set_aside": archive.list_set_aside(workdir),
        "latest": None,
        "checkpoint": None,
        "history": _history(workdir),
    }
    try:
        chosen = archive.choose_step(workdir, step)
    except CheckpointError as error:
        return {**found, "problems": [str(error)]}
    checkpoint = check(workdir, chosen)
    newest = checkpoint if chosen == found["steps"][-1] else check(workdir, found["steps"][-1])
    found["latest"] = {name: newest[name] for name in ("step", "digests", "ok")}
    return {**found, "checkpoint": checkpoint, "problems": checkpoint["problems"]}


def check(workdir: Path, step: int) -> dict[str, Any]:
    """Reads one checkpoint and compares every array with its digest.

    Returns:
      JSON values: step, ok, problems, digests (computed from the arrays), and, where the meta can be read, arrays
      {path: {shape, dtype, numbers, bytes}}, sessions, metrics, ended (why the run did before its last step), init_from
      (the run that it started from, else None) and meta {config, versions, git_commit}.
    """
    try:
        meta = archive.read_meta(workdir, step)
    except CheckpointError as error:
        return {"step": step, "ok": False, "problems": [str(error)], "digests": {}, "meta": None}
    contents = archive.read_contents(workdir, step, meta)
    problems = [str(archive.damaged(workdir, step, problem)) for problem in contents.problems.values()]
    return {
        "step": step,
        "ok": not problems,
        "problems": problems,
        "digests": contents.digests,
        "arrays": {path: _measure(leaf) for path, leaf in contents.leaves.items()},
        "sessions": [_session(entry) for entry in meta["info"].get("sessions", ())],
        "metrics": {name: value for name, value in meta["metrics"].items() if math.isfinite(value)},
        "ended": meta.get("ended", ""),
        "init_from": meta.get("init_from"),
        "meta": {name: meta[name] for name in ("config", "versions", "git_commit")},
    }


def describe(found: dict[str, Any]) -> Iterator[str]:
    """Words what `look_into` returned, line by line."""
    yield found["workdir"]
    names = [_name_step(found, step) for step in found["steps"]]
    yield f"checkpoints: {', '.join(names) or 'none'}"
    if found["set_aside"]:
        yield f"set aside as damaged: {', '.join(map(str, found['set_aside']))}"
    checkpoint = found["checkpoint"]
    if checkpoint and checkpoint["meta"]:
        yield from _describe_checkpoint(checkpoint)
    yield from _describe_history(found["history"])
    if checkpoint and checkpoint["meta"] and checkpoint["ended"]:
        yield f"  ended at step {checkpoint['step']}: {checkpoint['ended']}"
    if checkpoint:
        yield from ("", f"digests of checkpoint {checkpoint['step']}: {_verdict(checkpoint)}")


def _describe_checkpoint(checkpoint: dict[str, Any]) -> Iterator[str]:
    meta = checkpoint["meta"]
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in checkpoint["metrics"].items())
    yield from ("", f"checkpoint {checkpoint['step']}: {metrics or 'not evaluated'}")
    yield f"  written with {versions or 'unknown versions'}, git commit {meta['git_commit'] or 'unknown'}"
    if checkpoint["init_from"]:
        yield _describe_source(checkpoint["init_from"])
    yield from ("", "config")
    for name, section in meta["config"].items():
        values = flat_section(section)
        yield f"  {name}: {' '.join(f'{key}={value!r}' if key else repr(value) for key, value in values.items())}"
    sessions = checkpoint["sessions"]
    yield from ("", f"sessions: {len(sessions)}, {sum(session['units'] for session in sessions)} units")
    for session in sessions:
        yield f"  {session['name']}: subject {session['subject']}, {session['units']} units, {_place(session)}"
    yield from _describe_arrays(checkpoint["arrays"])


def _describe_source(source: dict[str, Any]) -> str:
    sessions = f", readouts of {', '.join(source['sessions'])}" if source["sessions"] else ""
    copied = len(source["parameters"]) + len(source["readouts"])
    parameters = f"{copied} parameters, digest {source['digest'][:12]}"
    return f"  started from {source['path']}, step {source['step']}: {parameters}{sessions}"


def _describe_arrays(arrays: dict[str, Any]) -> Iterator[str]:
    """A line for each parameter, and one for each other group of arrays."""
    parameters = {path: entry for path, entry in arrays.items() if path.startswith("params/")}
    rows = [
        (path.removeprefix("params/"), str(entry["shape"]), entry["dtype"], *_sizes([entry]))
        for path, entry in parameters.items()
    ]
    groups = dict.fromkeys(path.split("/")[0] for path in arrays)
    totals = {
        group: [entry for path, entry in arrays.items() if path.split("/")[0] == group] for group in groups
    }
    rows += [(f"all {group}", _count(entries), "", *_sizes(entries)) for group, entries in totals.items()]
    heads = ("parameter", "shape", "dtype", "numbers", "bytes")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    yield ""
    for row in (heads, *rows):
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        yield "  ".join([*left, *right])


def _describe_history(curves: dict[str, list]) -> Iterator[str]:
    yield from ("", "history")
    if LOSS in curves:
        (first, begin), (last, end) = curves[LOSS]
        yield f"  {LOSS}: {begin:.4g} at step {first}, {end:.4g} at step {last}"
    if BITS in curves:
        yield f"  {BITS}: {', '.join(f'{value:.4g} at {step}' for step, value in curves[BITS])}"
    if not curves:
        yield f"  {history.METRICS} holds neither {LOSS} nor {BITS}"


def _history(workdir: Path) -> dict[str, list]:
    """The first and the last training loss, and every evaluation, as [step, value]."""
    curves = history.read_curves(workdir / history.METRICS)
    found = {LOSS: [curves[LOSS][0], curves[LOSS][-1]]} if LOSS in curves else {}
    return found | {BITS: curves[BITS]} if BITS in curves else found


def _measure(leaf: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(leaf.shape),
        "dtype": str(leaf.dtype),
        "numbers": int(leaf.size),
        "bytes": int(leaf.nbytes),
    }


def _session(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: entry[name] for name in ("name", "subject", "fingerprint", "path")}
    return {**kept, "units": len(entry["unit_ids"])}


def _name_step(found: dict[str, Any], step: int) -> str:
    marks = [
        mark for mark, place in (("best", found["best"]), ("latest", found["steps"][-1])) if place == step
    ]
    return f"{step} ({', '.join(marks)})" if marks else str(step)


def _place(session: dict[str, Any]) -> str:
    return f"fingerprint {session['fingerprint'][:12]}, {session['path'] or 'embedded'}"


def _sizes(entries: list[dict[str, Any]]) -> tuple[str, str]:
    numbers, size = (sum(entry[name] for entry in entries) for name in ("numbers", "bytes"))
    return f"{numbers:,}", f"{size:,}"


def _count(entries: list[dict[str, Any]]) -> str:
    return "1 array" if len(entries) == 1 else f"{len(entries)} arrays"


def _verdict(checkpoint: dict[str, Any]) -> str:
    if checkpoint["ok"]:
        return f"all {len(checkpoint['digests'])} arrays are what was written"
    return f"DAMAGED, {len(checkpoint['problems'])} found"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
