"""Early stopping: a run ends where its evaluations do not get better any more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from polarjax.core import ConfigError

START = {"best": None, "best_step": 0, "since": 0}


class Patience:
    """Counts evaluations since the best one; saved with the state, so a resumed run ends at the same step.

    All processes of a run count the same, for they have the same metrics.

    Attributes:
      best: highest value of the metric so far, None before the first.
      best_step: step of it.
      since: evaluations after it, none of which was higher; of one that is not finite neither.
    """

    def __init__(self, metric: str, limit: int, saved: Mapping[str, Any] | None = None):
        """Starts at zero, or where `saved` (from `to_dict`) left off.

        Args:
          metric: name among the metrics of an evaluation, higher is better.
          limit: number of evaluations since the best one that ends the run, 0 for none.
          saved: of the checkpoint that the run continues from.
        """
        self._metric, self._limit = metric, limit
        saved = {**START, **(saved or {})}
        self.best, self.best_step, self.since = saved["best"], saved["best_step"], saved["since"]

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as JSON values; floats survive JSON exactly."""
        return {"best": self.best, "best_step": self.best_step, "since": self.since}

    def add(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Counts the evaluation of a step, and returns whether the run has to end.

        Raises:
          ConfigError: the run may end early and the evaluation does not give the metric.
        """
        if self._metric not in metrics and self._limit:
            raise ConfigError(
                f"config.train.patience is {self._limit}, but an evaluation gives no config.train.best_metric, "
                f"{self._metric!r}; it gives {', '.join(sorted(metrics)) or 'nothing'}"
            )
        value = float(metrics.get(self._metric, math.nan))
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best, self.best_step, self.since = value, step, 0
        else:
            self.since += 1
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why the run has to end, '' where it has not."""
        if not self._limit or self.since < self._limit:
            return ""
        best = (
            "none was finite"
            if self.best is None
            else f"the best is {self.best:.4g} at step {self.best_step}"
        )
        return f"no better {self._metric} in {self.since} evaluations (config.train.patience), {best}"
