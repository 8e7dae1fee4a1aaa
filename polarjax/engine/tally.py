"""What is counted between two lines of the log; saved with the state, so a resumed run logs the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from polarjax.core import NumericError

SKIPPED_STEPS = "skipped_steps.jsonl"  # in the work directory; see `skipped`
SPIKE_STEPS = 128
SPIKE_SIGMAS = 6.0
START = {
    "skipped": 0,
    "in_a_row": 0,
    "last_good": 0,
    "spikes": 0,
    "clipped": 0,
    "count": 0,
    "sums": {},
    "losses": (),
}


class Tally:
    """Means over the finite steps since the last line, skipped steps and spikes of the loss since the start.

    Attributes:
      skipped: steps of the run whose update was skipped.
      in_a_row: of these, how many were the last ones.
      last_good: last step whose update was finite.
      spikes: steps whose loss lay more than 6 standard deviations above the mean of the 128 finite ones before.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None):
        """Starts at zero, or where `saved` (from `to_dict`) left off."""
        saved = {**START, **(saved or {})}
        self.spikes, self._losses = saved["spikes"], deque(saved["losses"], SPIKE_STEPS)
        self.skipped, self.in_a_row, self.last_good = saved["skipped"], saved["in_a_row"], saved["last_good"]
        self._clipped, self._count, self._sums = saved["clipped"], saved["count"], dict(saved["sums"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as JSON values; floats survive JSON exactly."""
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "last_good": self.last_good,
            "clipped": self._clipped,
            "count": self._count,
            "sums": dict(self._sums),
            "spikes": self.spikes,
            "losses": list(self._losses),
        }

    def add(self, step: int, scalars: Mapping[str, Any], *, max_skipped: int) -> bool:
        """Counts one step.

        Args:
          step: number of the step, from 1.
          scalars: on the host, as the train step returns them.
          max_skipped: number of skipped steps in a row that stops the run.

        Returns:
          Whether the step was finite.

        Raises:
          NumericError: `max_skipped` steps in a row were skipped.
        """
        if scalars["finite"]:
            self.in_a_row, self.last_good = 0, step
            self._count += 1
            self._clipped += int(scalars["clipped"])
            self._watch(float(scalars["train/loss"]))
            for name, value in scalars.items():
                if name not in ("finite", "clipped"):
                    self._sums[name] = self._sums.get(name, 0.0) + float(value)
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= max_skipped:
            raise NumericError(
                f"the loss or its gradient was not finite in {self.in_a_row} steps in a row, up to step {step}; "
                f"the last good step is {self.last_good} and every checkpoint is finite. {SKIPPED_STEPS} in the work "
                "directory has their segments. Usual causes: a learning rate that is too high (config.optim.groups), "
                "numbers that are far too large in a session. Lower the rate and continue with --allow-config-change "
                "and its name, or correct the session and begin anew in another --workdir"
            )
        return False

    def _watch(self, loss: float) -> None:
        if len(self._losses) == SPIKE_STEPS:
            before = np.asarray(self._losses)
            self.spikes += int(loss > before.mean() + SPIKE_SIGMAS * before.std())
        self._losses.append(loss)

    def take(self) -> dict[str, float | int]:
        """Returns the means since the last call and starts anew; the totals of skipped steps and spikes stay."""
        means = {name: value / self._count for name, value in self._sums.items()}
        if self._count:
            means["train/clipped_share"] = self._clipped / self._count
        self._clipped, self._count, self._sums = 0, 0, {}
        return {**means, "train/skipped_steps": self.skipped, "train/loss_spikes": self.spikes}
