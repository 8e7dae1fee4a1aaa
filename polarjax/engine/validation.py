"""Sections of a config as dataclasses: names, types and ranges are checked before anything starts."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from polarjax.core import ConfigError, closest


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed range of a number, written into its annotation: Annotated[float, Range(0.0, 1.0)].

    Attributes:
      low, high: bounds, allowed themselves unless they are open.
    """

    low: float | int = -math.inf
    high: float | int = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float | int) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        opening, closing = (
            "(" if self.low_open else "[",
            ")" if self.high_open or math.isinf(self.high) else "]",
        )
        return f"{opening}{self.low:g}, {self.high:g}{closing}"


ANY = Range()
KINDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}


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
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in values:
        if name not in fields:
            raise ConfigError(f"{where}.{name} is not an option{closest(name, fields)}")
    missing = [name for name in fields if name not in values]
    if missing:
        raise ConfigError(f"{where}.{missing[0]} is missing; {where} needs {', '.join(fields)}")
    checked = {name: _read_value(values[name], hints[name], f"{where}.{name}") for name in fields}
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


def flat_section(section: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a section and all inside it as {'train.num_steps': value}; an empty section is a value."""
    if isinstance(section, dict) and section:
        return {
            path: value
            for name, entry in section.items()
            for path, value in flat_section(entry, f"{prefix}{name}.").items()
        }
    return {prefix[:-1]: section}


def _read_value(value: Any, hint: Any, where: str) -> Any:
    allowed = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range)), ANY)
    kind = typing.get_args(hint)[0] if allowed is not ANY else hint
    if kind not in KINDS:
        return value
    problem = ConfigError(
        f"{where} must be {KINDS[kind]}{'' if allowed is ANY else f' in {allowed}'}, got {value!r}"
    )
    if isinstance(value, bool) is not (kind is bool):
        raise problem
    if kind is float and isinstance(value, int):
        return _read_value(float(value), hint, where)
    if not isinstance(value, kind):
        raise problem
    if isinstance(value, (int, float)) and (not math.isfinite(value) or value not in allowed):
        raise problem
    return value
