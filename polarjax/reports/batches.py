"""Some batches of a tier, evenly spaced: enough for a mean, and as fast for a long recording as for a short one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from polarjax.core import Data, PyTree

MOST_BATCHES = 48


def spaced_batches(
    data: Data, tier: int, rows: int, predicted: int, most: int = MOST_BATCHES
) -> Iterator[PyTree]:
    """Yields about `most` requests of a tier or fewer, evenly spaced over it.

    Those that are filled up with segments of no tier, as the last are where one session is shorter, are left out;
    where there is no other, they are what there is.
    """
    frames = max(int(np.count_nonzero(np.asarray(session.tier) == tier)) for session in data.sessions)
    number = frames * len(data.sessions) / (predicted * rows)
    stride, found = max(1, round(number / most)), False
    for request in itertools.islice(data.evaluation(tier, rows), 0, None, stride):
        if request["counted"].any(axis=1).all():
            found = True
            yield request
    if not found:
        yield from itertools.islice(data.evaluation(tier, rows), most)
