"""What a run that starts from another one tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polarjax.engine.validation import flat_section

ABSENT = "absent"


def tell(record: Mapping[str, Any], there: Mapping[str, Any], here: Mapping[str, Any], why: str) -> list[str]:
    """Words what is copied, new and left behind.

    Args:
      record: from `warm_start.read_start`.
      there: meta of the source.
      here: from `describe_run`.
      why: no readout is copied; '' where some are.
    """
    where = f"{record['path']}, step {record['step']}"
    parts = [f"core from {where}: {_count(record['parameters'])}"]
    new = _by_first_name(record["new"])
    if record["sessions"]:
        names = [session["name"] for session in here["info"]["sessions"]]
        fresh = [name for name in names if name not in record["sessions"]]
        parts.append(f"readouts of {', '.join(record['sessions'])}: {_count(record['readouts'])}")
        new += [f"readouts of {', '.join(fresh)}"] if fresh else []
    for name, groups in (("new", new), ("left behind", _by_first_name(record["left_behind"]))):
        parts += [f"{name}: {', '.join(groups)}"] if groups else []
    afresh = [f"all readouts start afresh: {why}"] if why else []
    return ["; ".join(parts), *afresh, *_other_scales(where, there["info"], here["info"])]


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Words the values of config.model that differ between two runs."""
    before, after = (flat_section(run["config"]["model"], "config.model.") for run in (there, here))
    return [
        f"{name} is {left!r} there and {right!r} here"
        for name in sorted({*before, *after})
        if (left := before.get(name, ABSENT)) != (right := after.get(name, ABSENT))
    ]


def _other_scales(where: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    units = {"rate_hz": "frames/s", "pixels_per_degree": "pixels a degree"}
    return [
        f"warning: {where} saw {there[name]:g} {unit} and this run sees {here[name]:g}: what its core learned means "
        "other times or sizes here"
        for name, unit in units.items()
        if there[name] != here[name]
    ]


def _by_first_name(paths: Sequence[str]) -> list[str]:
    names = [path.split("/")[1] for path in paths]
    return [f"{name} ({names.count(name)})" for name in dict.fromkeys(names)]


def _count(paths: Sequence[str]) -> str:
    return "1 parameter" if len(paths) == 1 else f"{len(paths)} parameters"
