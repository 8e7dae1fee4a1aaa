"""Sections of a config as dataclasses: names, types and ranges are checked before anything starts."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from polarjax.core import ConfigError, closest


def ranged(
    low: float | int = -math.inf, high: float = math.inf, *, low_open: bool = False, high_open: bool = False
):
    """Declares the allowed range of a number as the metadata of its dataclass field."""
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open or math.isinf(high) else ']'}"
    return dataclasses.field(metadata={"range": (low, high, low_open, high_open), "interval": interval})


def read_section(kind: type, section: Any, where: str) -> Any:
    """Builds the dataclass `kind` from a section of the config.

    Args:
      kind: dataclass whose fields are the section's names; float fields accept whole numbers.
      section: mapping from the config.
      where: the section's name in messages, such as 'config.train'.

    Raises:
      ConfigError: an unknown, missing, wrongly typed, non-finite or out-of-range value.
    """
    values = read_mapping(section, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            raise ConfigError(f"{where}.{name} is not an option{closest(name, fields)}")
    missing = [name for name in fields if name not in values]
    if missing:
        raise ConfigError(f"{where}.{missing[0]} is missing; {where} needs {', '.join(fields)}")
    checked = {
        name: _read_value(values[name], hints[name], field.metadata, f"{where}.{name}")
        for name, field in fields.items()
    }
    return kind(**checked)


def read_mapping(section: Any, where: str) -> dict[str, Any]:
    """Returns a section as a dict, without its nested sections being copied.

    Raises:
      ConfigError: the value is no section.
    """
    if hasattr(section, "to_dict"):
        section = section.to_dict()
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where} must be a section of options, got {section!r}")
    return dict(section)


def _read_value(value: Any, hint: type, metadata: Mapping[str, Any], where: str) -> Any:
    if hint not in (int, float, str, bool):
        return value
    allowed = f"{_article(hint)} in {metadata['interval']}" if metadata else _article(hint)
    problem = ConfigError(f"{where} must be {allowed}, got {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise problem
    if hint is float and not math.isfinite(value):
        raise problem
    if metadata:
        low, high, low_open, high_open = metadata["range"]
        if value < low or value > high or (low_open and value == low) or (high_open and value == high):
            raise problem
    return value


def _article(hint: type) -> str:
    return {
        int: "a whole number",
        float: "a finite number",
        str: "a text",
        bool: "True or False",
    }[hint]
