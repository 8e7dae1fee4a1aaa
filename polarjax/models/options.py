"""The choices that Polar-V1 offers."""

from __future__ import annotations

from typing import Any

from polarjax.core import ConfigError
from polarjax.ops import summaries
from polarjax.ops.laplacian_pyramid import check_n_levels

CHOICES = {
    "filters": ("dense", "separable"),
    "gaze": ("scaled", "raw", "none"),
    "dynamics": ("recurrent", "framewise", "none"),
    "recurrence": ("scan", "associative"),
    "start": ("drive", "rest"),
    "readout": ("shared", "per_level"),
    "link": ("softplus", "exp"),
    "dtype": ("float32", "bfloat16"),
}


def check_options(model: Any) -> None:
    """Checks the attributes of a `PolarV1`.

    Raises:
      ConfigError: an option is outside its choices, or the frame is too small for the levels.
    """
    for field, choices in CHOICES.items():
        if getattr(model, field) not in choices:
            raise ConfigError(
                f"config.model.kwargs.{field} is {getattr(model, field)!r}; allowed are {', '.join(choices)}."
            )
    height, width, _ = model.frame_shape
    check_n_levels(height, width, model.n_levels)
    unknown = set(model.summaries) - set(summaries.NAMES)
    if unknown or not model.summaries:
        raise ConfigError(
            f"config.model.kwargs.summaries holds {sorted(unknown)}; allowed are {', '.join(summaries.NAMES)}."
        )
