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


def first_pixel(strides: tuple[int, ...], pools: tuple[int, ...]) -> float:
    """Returns the pixel under the first sample of the maps: a sample that pools two neighbours lies between them."""
    pixel, step = 0.0, 1
    for stride, pooling in zip(strides, pools, strict=True):
        step *= stride
        pixel += 0.5 * step if pooling else 0.0
        step *= max(pooling, 1)
    return pixel


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
    _check_stages(model)
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


def _check_stages(model: Any) -> None:
    for field in OF_STAGES:
        least = 0 if field == "pools" else 1
        if min(getattr(model, field)) < least:
            raise ConfigError(
                f"config.model.kwargs.{field} is {getattr(model, field)}; allowed are whole numbers from {least} on."
            )
    if model.frontend_filters < 0:
        raise ConfigError(
            f"config.model.kwargs.frontend_filters is {model.frontend_filters}; allowed are whole numbers from 0 on."
        )
    if model.shortcut == "reference" and len(model.channels) > len(REFERENCE_PADDING):
        raise ConfigError(
            f"config.model.kwargs.shortcut is 'reference' with {len(model.channels)} stages; the reference has at most "
            f"{len(REFERENCE_PADDING)}."
        )
    size = list(model.frame_shape[:2])
    for stage, (stride, pool) in enumerate(zip(model.strides, model.pools, strict=True)):
        size = [-(-side // stride) for side in size]
        size = [(side - 2) // pool + 1 for side in size] if pool else size
        if min(size) < 1:
            raise ConfigError(
                f"Frames of {model.frame_shape[0]} x {model.frame_shape[1]} pixels are used up in stage {stage}; "
                "allowed are larger frames, or smaller config.model.kwargs.strides and .pools."
            )
