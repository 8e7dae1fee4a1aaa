"""The choices that Polar-V1 offers."""

from __future__ import annotations

import math
from typing import Any

from polarjax.core import ConfigError
from polarjax.ops import summaries
from polarjax.ops.laplacian_pyramid import check_n_levels

CHOICES = {
    "filters": ("dense", "separable"),
    "gaze": ("scaled", "raw", "none"),
    "saccade_gate": ("learned", "speed"),
    "dynamics": ("recurrent", "framewise", "none"),
    "recurrence": ("scan", "associative"),
    "start": ("drive", "rest"),
    "readout": ("shared", "per_level"),
    "link": ("softplus", "exp"),
    "dtype": ("float32", "bfloat16"),
}
# Open intervals: an average with alpha = 1 never changes, and its logit is infinite.
INTERVALS = {
    **dict.fromkeys(("n_pairs", "kernel_size", "finest_stride", "code_width"), (0, math.inf)),
    **dict.fromkeys(("base_frequency", "max_velocity"), (0.0, math.inf)),
    "alpha_fast": (0.0, 1.0),
    "alpha_slow": (0.0, 1.0),
    "fixation_rate": (0.0, math.inf),
    "saccade_rate": (0.0, math.inf),
}


def check_options(model: Any) -> None:
    """Checks the attributes of a `PolarV1`.

    Raises:
      ConfigError: an option is outside its choices or its interval, or the frame is too small for the levels.
    """
    for field, choices in CHOICES.items():
        if getattr(model, field) not in choices:
            raise ConfigError(
                f"config.model.kwargs.{field} is {getattr(model, field)!r}; allowed are {', '.join(choices)}."
            )
    for field, (low, high) in INTERVALS.items():
        if not low < getattr(model, field) < high:
            raise ConfigError(
                f"config.model.kwargs.{field} is {getattr(model, field)!r}; allowed are numbers between {low:g} and "
                f"{high:g}, both excluded."
            )
    if model.gaze_gain and not model.uses_gaze:
        raise ConfigError(
            f"config.model.kwargs.gaze_gain is True with gaze {model.gaze!r} and dynamics {model.dynamics!r}: there is "
            "no gaze code. Set gaze_gain=False, or gaze and dynamics to something other than 'none'."
        )
    height, width, _ = model.frame_shape
    check_n_levels(height, width, model.n_levels)
    if model.surround is not None and not (model.surround > 1 and model.readout == "shared"):
        raise ConfigError(
            f"config.model.kwargs.surround is {model.surround!r} with readout {model.readout!r}; allowed are None, and "
            "with readout 'shared' a number above 1, the ratio of the widths."
        )
    if model.saccade_gate == "speed" and not model.uses_gaze:
        raise ConfigError(
            f"config.model.kwargs.saccade_gate is 'speed' with gaze {model.gaze!r} and dynamics {model.dynamics!r}: "
            "there is no speed to gate. Leave it 'learned', or set gaze and dynamics to something other than 'none'."
        )
    if model.normalization and model.readout != "shared":
        raise ConfigError(
            f"config.model.kwargs.normalization is True with readout {model.readout!r}: a unit needs one place on the "
            "frame. Set readout='shared', or normalization=False."
        )
    unknown = set(model.summaries) - set(summaries.NAMES)
    if unknown or not model.summaries:
        raise ConfigError(
            f"config.model.kwargs.summaries holds {sorted(unknown)}; allowed are {', '.join(summaries.NAMES)}."
        )
