"""Training that begins with segments of high contrast: some are drawn by contrast, fewer with every step.

At step k each segment of a batch is, with probability

    w_k = w max(0, 1 - k/K),

drawn anew with a probability in proportion to its RMS contrast, and otherwise it is the one of the epoch. So the
distribution of a segment is (1 - w_k) uniform + w_k contrast, and from step K on batches are those without emphasis.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

CHANNEL = 1
"""Keeps these random numbers apart from those of the epochs' orders."""


@dataclasses.dataclass(frozen=True, eq=False)
class Emphasis:
    """How strongly contrast weighs in the choice of segments.

    Attributes:
      weight: w, in [0, 1].
      anneal_steps: K, >= 1.
      contrast: RMS contrast of every frame of each session.
    """

    weight: float
    anneal_steps: int
    contrast: tuple[Float[np.ndarray, "_"], ...]

    def share(self, step: int) -> float:
        """Returns w_k."""
        return self.weight * max(0.0, 1.0 - step / self.anneal_steps)

    def cumulative(
        self, session: int, starts: Int[np.ndarray, " starts"], length: int
    ) -> Float[np.ndarray, " starts"]:
        """Returns running sums of the segments' chances, of which the last is 1; all alike where nothing has contrast.

        The contrast of a segment is the root of the mean over its frames of c_t squared.
        """
        energy = np.concatenate([[0.0], np.cumsum(np.square(self.contrast[session], dtype=np.float64))])
        chances = np.sqrt(np.maximum(energy[starts + length] - energy[starts], 0))
        running = np.cumsum(chances if chances.any() else np.ones(len(starts)))
        return running / running[-1]

    def redraw(
        self,
        key: tuple[int, int, int],
        starts: Int[np.ndarray, " share"],
        chances: tuple[np.ndarray, np.ndarray],
    ) -> Int[np.ndarray, " share"]:
        """Replaces some of a session's starts in a batch by others that are drawn by contrast.

        Args:
          key: seed, step and session: all that the result depends on.
          starts: those of the epoch.
          chances: all starts of the session, and their `cumulative`.
        """
        seed, step, session = key
        share, (every, running) = self.share(step), chances
        if share == 0:
            return starts
        random = np.random.default_rng([seed, step, session, CHANNEL])
        anew = random.random(len(starts)) < share
        drawn = np.searchsorted(running, random.random(len(starts)), side="right")
        return np.where(anew, every[np.minimum(drawn, len(every) - 1)], starts)
