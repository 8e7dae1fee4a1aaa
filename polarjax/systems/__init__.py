"""Where model, loss and batch meet. `BUILD` is the registry of systems, `FLOORS` that of what they must beat."""

from __future__ import annotations

from typing import Any

import ml_collections

from polarjax.core import ConfigError, DataInfo, System, closest
from polarjax.systems import polar

BUILD = {"polar": polar.build}
FLOORS = {"polar": polar.floor}
STARTS = {"polar": polar.starting_constants}


def build(config: Any, info: DataInfo) -> System:
    """Builds config.system for the sessions that `info` describes.

    Raises:
      ConfigError: config.system, a model keyword or a loss term is unknown.
    """
    if config.system not in BUILD:
        raise ConfigError(f"config.system is {config.system!r}{closest(str(config.system), BUILD)}.")
    return BUILD[config.system](config, info)


def floor(config: Any) -> ml_collections.ConfigDict | None:
    """Derives the config of the simple model that the one of `config` must beat on the same batches.

    Returns:
      A whole config for config.train.floor_steps steps; None where there are none, where the system has no floor or
      where `config` is that of the floor itself.
    """
    return FLOORS[config.system](config) if config.system in FLOORS else None


def starting_constants(config: Any, info: DataInfo) -> dict[str, float]:
    """Returns what `System.constants` says before the first step; nothing for a system without constants."""
    return STARTS[config.system](config, info) if config.system in STARTS else {}
