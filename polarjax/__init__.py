"""Models of foveal primary visual cortex, fitted to spikes under natural eye movements."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polarjax.twin import Twin

__all__ = ["load"]


def load(workdir: str | os.PathLike[str], step: int | str | None = None) -> Twin:
    """Opens a trained model for prediction, from its work directory alone.

    Args:
      workdir: what `train.py --workdir` was given; neither the data nor the config file are needed.
      step: step of a checkpoint, 'best' or 'latest'; None takes the best, by config.train.best_metric.

    Raises:
      CheckpointError: no such directory or step, or a damaged checkpoint.
    """
    # Imported on use, so that a program may set JAX's environment after importing polarjax.
    from polarjax import twin

    return twin.load(workdir, step)
