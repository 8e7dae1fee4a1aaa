"""The log of a run, metrics.jsonl: one JSON object a line with its step; read without JAX."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_line(line: str) -> dict[str, Any] | None:
    """Returns the numbers of a line; None for one that a kill cut short."""
    try:
        fields = json.loads(line)
        return {**fields, "step": int(fields["step"])}
    except (ValueError, KeyError, TypeError):
        return None


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads metrics.jsonl as {name: [(step, value), ..]}; a step written twice keeps its last value.

    A line that a killed run left half-written is passed over.
    """
    values: dict[str, dict[int, float]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    for fields in filter(None, map(read_line, lines)):
        for name, value in fields.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(name, {})[fields["step"]] = float(value)
    return {name: sorted(points.items()) for name, points in values.items()}
