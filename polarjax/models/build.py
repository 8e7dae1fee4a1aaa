"""The Flax module that config.model names, for the sessions of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from polarjax.core import ConfigError, DataInfo, closest
from polarjax.models.linear_nonlinear import LinearNonlinear
from polarjax.models.polar_v1 import PolarV1
from polarjax.models.readout import nested
from polarjax.models.resnet_convgru import ResnetConvGRU

FLOOR = "linear_nonlinear"
MODELS = {"polar_v1": PolarV1, "resnet_convgru": ResnetConvGRU, FLOOR: LinearNonlinear}
SMALLEST_RATE = 1e-4
FROM_DATA = (
    "n_units",
    "frame_shape",
    "dt",
    "pixels_per_degree",
    "initial_mean",
    "initial_rate",
    "parent",
    "name",
)


def make_module(config: Any, info: DataInfo) -> PolarV1 | ResnetConvGRU | LinearNonlinear:
    """Builds the Flax module of config.model for the sessions of `info`.

    Raises:
      ConfigError: config.model.name or a keyword of config.model.kwargs is unknown.
    """
    name, kwargs = config.model.name, dict(config.model.kwargs)
    if name not in MODELS:
        raise ConfigError(f"config.model.name is {name!r}{closest(str(name), MODELS)}.")
    fields = {field.name for field in dataclasses.fields(MODELS[name])}
    for key in kwargs:
        if key not in fields - set(FROM_DATA):
            raise ConfigError(
                f"config.model.kwargs.{key} is no argument of {name!r}{closest(key, fields - set(FROM_DATA))}."
            )
    rates = np.maximum(padded(info, [session.mean_count for session in info.sessions], 1.0), SMALLEST_RATE)
    n_units = tuple(len(session.unit_ids) for session in info.sessions)
    given = {
        "n_units": n_units if any(n_units) else (1,) * len(n_units),  # a unit that is never scored
        "frame_shape": tuple(info.frame_shape),
        "dt": 1 / info.rate_hz,
        "pixels_per_degree": info.pixels_per_degree,
        "initial_mean": nested(padded(info, [session.position_deg for session in info.sessions], shape=(2,))),
        "initial_rate": nested(rates),
    }
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    model: Any = MODELS[name]
    return model(**{key: value for key, value in given.items() if key in fields}, **kwargs)


def padded(info: DataInfo, values: Any, fill: float = 0.0, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Returns what every session has for its units, of a shape each, as one array; `fill` where a session has fewer."""
    padded = np.full((len(info.sessions), max(info.max_units, 1), *shape), fill)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = np.reshape(value, (len(value), *shape))
    return padded


def is_readout(model_name: str, path: tuple[str, ...]) -> bool:
    """Whether a parameter belongs to the readouts, whose first axes are sessions and units."""
    return model_name == FLOOR or path[0] == "readout"
