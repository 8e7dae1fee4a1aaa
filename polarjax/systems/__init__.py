"""Where model, loss and batch meet. `BUILD` is the only registry."""

from __future__ import annotations

from typing import Any

from polarjax.core import ConfigError, DataInfo, System, closest
from polarjax.systems import polar

BUILD = {"polar": polar.build}


def build(config: Any, info: DataInfo) -> System:
    """Builds config.system for the sessions that `info` describes.

    Raises:
      ConfigError: config.system, a model keyword or a loss term is unknown.
    """
    if config.system not in BUILD:
        raise ConfigError(f"config.system is {config.system!r}{closest(str(config.system), BUILD)}.")
    return BUILD[config.system](config, info)
