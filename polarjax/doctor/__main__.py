"""Checks whether this machine can train: packages, devices, memory, storage, a real train step, session folders.

python -m polarjax.doctor [--data FOLDER] [--workdir DIR] [--json]
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from polarjax.core import PolarjaxError
from polarjax.doctor import machine, packages
from polarjax.doctor.findings import Finding, run_check
from polarjax.engine.flags import parse_flags

FLAGS = {
    "data": "session folders to check, as in --config.data.sessions",
    "workdir": "folder where the run will lie (default: runs)",
    "json": "prints one JSON list instead of text",
}


def main(arguments: list[str]) -> int:
    """Runs all checks and prints a line for each finding; returns the exit code of the first failure, or 0."""
    try:
        flags, _ = parse_flags(arguments, FLAGS, __doc__ or "", switches=("json",))
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    findings = []
    for finding in examine(Path(flags.get("workdir", "runs")), flags.get("data")):
        findings.append(finding)
        if "json" not in flags:
            print(finding, flush=True)
    if "json" in flags:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)


def examine(workdir: Path, data: str | None) -> Iterator[Finding]:
    """Yields the findings of all checks in their order.

    Args:
      workdir: where the run will lie.
      data: session folders, None for none.
    """
    yield from run_check("python", packages.check_python)
    yield from run_check("packages", packages.check_packages)
    yield from run_check("devices", machine.check_devices)
    yield from run_check("memory", machine.check_memory)
    yield from run_check("workdir", lambda: machine.check_storage(workdir))
    yield from run_check("cache", machine.check_cache)
    yield from run_check("product", _check_product)
    yield from run_check("train step", _check_train_step)
    if data is not None:
        yield from run_check("session", lambda: _check_sessions(data))


# Imported in the check that needs them: where a package is missing, the other checks still answer.
def _check_product() -> Iterator[Finding]:
    from polarjax.doctor import speed

    return speed.check_product()


def _check_train_step() -> Iterator[Finding]:
    from polarjax.doctor import speed

    return speed.check_train_step()


def _check_sessions(data: str) -> Iterator[Finding]:
    from polarjax.doctor import recordings

    return recordings.check_sessions(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
