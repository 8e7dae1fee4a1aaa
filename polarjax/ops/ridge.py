"""Linear probes in closed form, in NumPy and float64: what can be read from features along a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_SCALE = 1e-3


class Scale(NamedTuple):
    """Mean and deviation of features; features that hardly vary are not blown up."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Scale:
        """Measures them; a deviation is at least a thousandth of the mean one."""
        features = features.astype(np.float64)
        deviation = features.std(axis=0)
        return cls(
            features.mean(axis=0),
            np.maximum(deviation, LEAST_SCALE * deviation.mean() + np.finfo(float).tiny),
        )

    def apply(self, features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
        """Standardises features."""
        return (features - self.mean[None]) / self.deviation[None]


def ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n K"], penalties: Sequence[float]
) -> Float[np.ndarray, "P d K"]:
    """Returns for each penalty p the weights that minimise |y - x w|^2 + p n d |w|^2.

        w = x^T (x x^T + p n d I)^-1 y

    In this form n x n numbers are decomposed once, however many features and penalties there are. For standardised x
    the trace of x x^T is n d: a penalty of 1 is the variance of all features together.

    Args:
      x: standardised features.
      y: targets without their mean.
      penalties: numbers > 0.

    Source: Hoerl & Kennard 1970; the dual form, Saunders et al. 1998.
    """
    count, features = x.shape
    values, vectors = np.linalg.eigh(x @ x.T)
    seen = vectors.T @ y
    shrunk = [seen / (values + penalty * count * features)[:, None] for penalty in penalties]
    return np.stack([x.T @ (vectors @ part) for part in shrunk])


def explained_variance(
    y: Float[np.ndarray, "n K"], prediction: Float[np.ndarray, "n K"], mean: Float[np.ndarray, " K"]
) -> float:
    """Returns R^2 = 1 - |y - prediction|^2/|y - mean|^2, all columns together.

    Args:
      mean: of the targets that were fitted: 0 is the best that is possible without features; below 0 is worse.

    Returns:
      At most 1; NaN where the targets do not vary.
    """
    total = float(np.square(y - mean[None]).sum())
    return 1 - float(np.square(y - prediction).sum()) / total if total > 0 else float("nan")
