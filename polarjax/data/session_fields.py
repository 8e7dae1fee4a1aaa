"""session.json: the fields that say what the arrays of a session mean, read and checked."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from polarjax.core import FORMAT_VERSION, DataError
from polarjax.data.arrays import Faults
from polarjax.data.checks import TIERS
from polarjax.data.retina import WindowGeometry

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 100
FIELDS = (
    *("format_version", "name", "subject", "rate_hz", "pixels_per_degree", "gaze_unit", "count_unit"),
    *("unit_ids", "source", "tiers", "sha256"),
)


def read_fields(folder: Path) -> dict[str, Any]:
    """Reads session.json.

    Raises:
      DataError: missing, no JSON, or a field that is missing or not as expected (with its value).
    """
    faults, file = Faults(folder), "session.json"
    if not folder.is_dir():
        raise DataError(
            f"session folder {folder} does not exist; expected a folder with session.json. Check config.data.sessions"
        )
    try:
        fields = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise faults.error(
            file, "the file is missing", "Give a session folder, or a folder of session folders"
        ) from error
    except (OSError, ValueError) as error:
        raise faults.error(file, f"cannot be read as JSON ({error})", "Copy the session again") from error
    if not isinstance(fields, dict):
        raise faults.error(
            file, f"holds a {type(fields).__name__}, expected an object of fields", "See write_session"
        )
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise faults.error(file, f"lacks {', '.join(missing)}", "Write the session with write_session")
    _check_fields(faults, fields)
    return fields


def _check_fields(faults: Faults, fields: dict[str, Any]) -> None:
    expected = {
        "format_version": FORMAT_VERSION,
        "gaze_unit": "deg",
        "count_unit": "spikes/bin",
        "tiers": TIERS,
    }
    for name, wanted in expected.items():
        if fields[name] != wanted:
            remedy = (
                "Convert the array to this unit"
                if name.endswith("unit")
                else "Use the version that wrote the session"
            )
            raise faults.error("session.json", f"{name} is {fields[name]!r}, expected {wanted!r}", remedy)
    for name in ("rate_hz", "pixels_per_degree"):
        _check_positive(faults, name, fields[name])
    for name, kind in (("subject", str), ("source", str), ("sha256", dict)):
        if not isinstance(fields[name], kind):
            raise faults.error(
                "session.json", f"{name} is {fields[name]!r}, expected a {kind.__name__}", "Correct the field"
            )
    _check_name(fields["name"], faults.folder)


def _check_positive(faults: Faults, name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise faults.error("session.json", f"{name} is {value!r}, expected a number > 0", "Correct the field")


def _check_name(name: object, folder: Path) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
        shown = repr(name)[: LONGEST_NAME + 10]
        raise DataError(
            f"session {folder.name}: session.json: name is {shown}; allowed are letters, digits, '.', '_' and '-', "
            f"first a letter or digit, at most {LONGEST_NAME} characters. Rename the session ({folder})"
        )


def window_geometry(
    folder: Path, kind: str, fields: dict[str, Any], shape: tuple[int, ...]
) -> WindowGeometry | None:
    """Returns how windows lie on the scenes; None where the session stores windows.

    Args:
      folder: the session folder, for messages.
      kind: 'frames' or 'scenes'.
      fields: of session.json.
      shape: rows and columns of the stored images.

    Raises:
      DataError: `window` is missing, wrong, or given without scenes.
    """
    faults, window = Faults(folder), fields.get("window")
    if kind == "frames":
        if window is not None:
            raise faults.error(
                "session.json",
                "window is given, but frames.npy holds the windows",
                "Remove window, or store scenes",
            )
        return None
    if not isinstance(window, dict) or set(window) != {"size", "pixels_per_degree"}:
        problem = f"window is {window!r}, expected {{'size': [H, W], 'pixels_per_degree': number}}"
        raise faults.error("session.json", problem, "scenes.npy needs the size of the retinal window")
    size = window["size"]
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise faults.error(
            "session.json", f"window size is {size!r}, expected [H, W] in pixels", "Correct the field"
        )
    _check_positive(faults, "window pixels_per_degree", window["pixels_per_degree"])
    height, width = size
    ratios = float(fields["pixels_per_degree"]), float(window["pixels_per_degree"])
    return WindowGeometry((int(shape[0]), int(shape[1])), (height, width), *ratios)
