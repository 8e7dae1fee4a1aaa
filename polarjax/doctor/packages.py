"""Python and the packages, against the versions that are pinned; with the standard library alone."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from polarjax.core import ConfigError
from polarjax.doctor.findings import COMMAND, OK, WARN, Finding, failure

LOWEST_PYTHON, PYTHON_BELOW = (3, 11), (3, 14)
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
NAMED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check_python() -> Iterator[Finding]:
    """Compares the version of Python with the supported ones."""
    text = f"Python {platform.python_version()} at {sys.executable}"
    if LOWEST_PYTHON <= sys.version_info[:2] < PYTHON_BELOW:
        yield Finding("python", OK, text)
        return
    lowest, below = (".".join(map(str, version)) for version in (LOWEST_PYTHON, PYTHON_BELOW))
    remedy = f"make PYTHON 3.{PYTHON_BELOW[1] - 1} available and run make clean env"
    yield failure("python", ConfigError, f"{text}, expected at least {lowest} and below {below}", remedy)


def check_packages() -> Iterator[Finding]:
    """Compares the installed versions with those of requirements.txt, or of the installed package's own metadata."""
    pins = read_pins()
    if not pins:
        yield Finding("packages", WARN, "no pinned versions found, nothing to compare with", COMMAND)
        return
    installed = {name: _version(name) for name in pins}
    missing = [name for name, version in installed.items() if version is None]
    other = [
        f"{name} {version} (pinned {pins[name]})"
        for name, version in installed.items()
        if version not in (None, pins[name])
    ]
    if missing:
        remedy = f"source .venv/bin/activate; where that is done, {COMMAND}"
        yield failure(
            "packages", ConfigError, f"not installed for {sys.executable}: {', '.join(missing)}", remedy
        )
    if other:
        yield Finding("packages", WARN, f"other versions than tested: {', '.join(other)}", COMMAND)
    if not missing and not other:
        shown = ", ".join(f"{name} {pins[name]}" for name in NAMED if name in pins)
        yield Finding("packages", OK, f"all {len(pins)} as pinned: {shown}")


def read_pins() -> dict[str, str]:
    """Returns {package: pinned version}; {} where neither the file nor the installed package tells."""
    if REQUIREMENTS.is_file():
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    else:
        try:
            lines = importlib.metadata.requires("polarjax") or []
        except importlib.metadata.PackageNotFoundError:
            lines = []
    # A line of an extra names it behind a ';', and what an extra adds need not be installed.
    found = [re.match(r"([\w.-]+)==([^\s;]+)\s*$", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
