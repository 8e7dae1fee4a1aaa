"""The choices that the residual network with a convolutional GRU offers."""

from __future__ import annotations

from typing import Any

from polarjax.core import ConfigError
from polarjax.ops.normalization import n_groups

FRONTEND_TAPS = 16
CHOICES = {
    "gaze": ("scaled", "raw", "none"),
    "shortcut": ("aligned", "reference"),
    "link": ("softplus", "exp"),
}
OF_STAGES = ("channels", "kernel_sizes", "strides", "pools", "dilations", "reductions")
REFERENCE_PADDING = (3, 3, 2)


def reference_padding(stage: int) -> int:
    """Returns the pixels that the reference adds beyond the border of a stage."""
    return REFERENCE_PADDING[stage]


def check_options(model: Any) -> None:
    """Checks the attributes of a `ResnetConvGRU`.

    Raises:
      ConfigError: an option is outside its choices, or the options of the stages are not as many.
    """
    for field, choices in CHOICES.items():
        if getattr(model, field) not in choices:
            raise ConfigError(
                f"config.model.kwargs.{field} is {getattr(model, field)!r}; allowed are {', '.join(choices)}."
            )
    lengths = {field: len(getattr(model, field)) for field in OF_STAGES}
    if len(set(lengths.values())) > 1 or not model.channels:
        raise ConfigError(
            "config.model.kwargs must have one value a stage in each of "
            f"{', '.join(OF_STAGES)}; got {', '.join(f'{n} in {field}' for field, n in lengths.items())}."
        )
    hidden = model.hidden
    if hidden < 1 or 3 * hidden % n_groups(hidden):
        raise ConfigError(
            f"config.model.kwargs.hidden is {hidden}; allowed are 1 to 32 and multiples of 32, because the group norm "
            "of the 3 x hidden channels of the gates has min(32, hidden) groups."
        )
    even = [size for size in model.kernel_sizes if size % 2 == 0]
    if even:
        raise ConfigError(f"config.model.kwargs.kernel_sizes holds {even}; allowed are odd numbers.")
    if not 0 <= model.dropout * (len(model.channels) - 1) < 1:
        raise ConfigError(
            f"config.model.kwargs.dropout is {model.dropout!r}; allowed are numbers from 0, and below 1 for the last "
            f"stage, which has {len(model.channels) - 1} times as much."
        )
