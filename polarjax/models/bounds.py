"""The section config.optim.bounds: what quantities of a model are held to after every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from polarjax.core import ConfigError, PyTree, as_numbers, closest
from polarjax.models import constants

WIDTH = "width_deg"


class WidthBounds(NamedTuple):
    """Allowed standard deviations of the readout's Gaussians, degrees; of a surround, those of its centre.

    Attributes:
      low: at all times.
      high_at_start, high_at_end: the upper bound goes from the one to the other in a line.
      share: of the run, after which it is there.
    """

    low: float
    high_at_start: float
    high_at_end: float
    share: float

    def high(self, progress: Any) -> Any:
        """Returns the upper bound where `progress` of the run is done."""
        done = jnp.minimum(progress / self.share, 1.0)
        return self.high_at_start + (self.high_at_end - self.high_at_start) * done


class Bounds(NamedTuple):
    """What is held: constants by name, in 1/s or a frame, and the widths of the readout."""

    constants: dict[str, tuple[float, float]]
    widths: WidthBounds | None


def read_bounds(model: Any, bounds: Mapping[str, Any]) -> Bounds:
    """Checks config.optim.bounds; an entry that is None or absent bounds nothing.

    Raises:
      ConfigError: a name that is no quantity, or a value that the model cannot hold.
    """
    for name in bounds:
        if name not in (*constants.PLACES, WIDTH):
            raise ConfigError(
                f"config.optim.bounds.{name} is unknown{closest(name, (*constants.PLACES, WIDTH))}."
            )
    given = {name: limits for name, limits in bounds.items() if limits is not None}
    widths = _read_widths(model, given.pop(WIDTH)) if WIDTH in given else None
    return Bounds(constants.read_bounds(model, given), widths)


def project(model: Any, params: PyTree, bounds: Bounds, progress: Any) -> PyTree:
    """Moves what is bounded to the nearest value inside.

    Args:
      model: as in `read_bounds`.
      params: of the model.
      bounds: from `read_bounds`.
      progress: share of the run that is done.
    """
    params = constants.clip_constants(model, params, bounds.constants)
    if bounds.widths is None:
        return params
    low, high = math.log(bounds.widths.low), jnp.log(bounds.widths.high(progress))
    readout = params["readout"]
    return {**params, "readout": {**readout, "log_width": jnp.clip(readout["log_width"], low, high)}}


def _read_widths(model: Any, limits: Any) -> WidthBounds:
    # Only what `make_readout` makes has an initial width, and Gaussians of the reference's kind have none in degrees.
    if not hasattr(model, "initial_width") or getattr(model, "readout", "shared") != "shared":
        raise ConfigError(
            f"config.optim.bounds.{WIDTH} is {limits!r}, but the model has no readout with widths in degrees; "
            "set it to None."
        )
    values = as_numbers(limits)
    low, start, end, share = (*values, values[-1], 1.0) if len(values) == 2 else (*values, *(0.0,) * 4)[:4]
    if len(values) not in (2, 4) or not (0 < low < min(start, end) < math.inf and 0 < share <= 1):
        raise ConfigError(
            f"config.optim.bounds.{WIDTH} is {limits!r}; allowed are None, (low, high) and (low, high at the start, "
            "high at the end, share of the run until then), with 0 < low < high and 0 < share <= 1."
        )
    return WidthBounds(low, start, end, share)
