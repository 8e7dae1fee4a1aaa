"""Which segments are cut: burn_in + predicted frames of one trial, oldest first, from (seed, step) alone.

A request names B segments, example i of session i % S:
  start int32 [B]: first frame, on the time line of the session.
  stop int32 [B]: end of the trial; frames from there on repeat its last one.
  counted float32 [B, predicted]: weight of each predicted bin; 0 where it was scored before or only
  fills the batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from polarjax.core import ConfigError, DataError
from polarjax.data.emphasis import Emphasis
from polarjax.data.sessions import Session

Request = dict[str, Shaped[np.ndarray, "B ..."]]


@dataclasses.dataclass(frozen=True)
class Cut:
    """Length of a segment in frames.

    Attributes:
      burn_in: frames before the first predicted one.
      predicted: frames whose counts are predicted.
    """

    burn_in: int
    predicted: int

    @property
    def length(self) -> int:
        """Frames of a segment."""
        return self.burn_in + self.predicted


def trial_bounds(session: Session) -> Int[np.ndarray, "trials 2"]:
    """Returns the first frame and the end (exclusive) of each trial."""
    changes = np.flatnonzero(np.diff(session.trial)) + 1
    edges = np.concatenate([[0], changes, [len(session.trial)]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def scored_bins(session: Session, kept: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " T"]:
    """Returns where at least one of the kept units has a valid count; without units, where a frame is usable."""
    valid = np.asarray(session.valid)
    return valid[:, 0] if valid.shape[1] == 1 else np.asarray(valid[:, kept].any(axis=1))


def valid_starts(
    session: Session, tier: int, cut: Cut, scored: Bool[np.ndarray, " T"]
) -> Int[np.ndarray, " starts"]:
    """Returns the first frame of each segment inside one trial of the tier that has a scored bin to predict.

    Where no spikes were recorded, every frame of a segment is a scored one: nothing else could be learned from it.
    """
    frames = len(session.trial)
    if frames < cut.length:
        return np.zeros(0, np.int32)
    start = np.arange(frames - cut.length + 1)
    total = np.concatenate([[0], np.cumsum(scored)])
    inside = session.trial[start] == session.trial[start + cut.length - 1]
    if session.unit_ids:
        some = total[start + cut.length] > total[start + cut.burn_in]
    else:
        some = total[start + cut.length] - total[start] == cut.length
    return start[inside & some & (session.tier[start] == tier)].astype(np.int32)


def require_starts(session: Session, cut: Cut, scored: Bool[np.ndarray, " T"]) -> Int[np.ndarray, " starts"]:
    """Returns the valid starts of the training tier.

    Raises:
      DataError: there is none; says what removed how many.
    """
    starts = valid_starts(session, 0, cut, scored)
    if starts.size:
        return starts
    bounds = trial_bounds(session)
    lengths = bounds[:, 1] - bounds[:, 0]
    tier = session.tier[bounds[:, 0]]
    training, left_out = tier == 0, tier > 2
    if lengths.max() < cut.length:
        raise DataError(
            f"windows longer than every trial: session {session.name} has a longest trial of {lengths.max()} frames, "
            f"burn_in + predicted is {cut.burn_in} + {cut.predicted} = {cut.length}. "
            f"Lower config.data.burn_in or .predicted ({session.folder})"
        )
    possible = np.maximum(lengths - cut.length + 1, 0)
    without = "no valid count among the predicted bins" if session.unit_ids else "gaze or image not finite"
    raise DataError(
        f"session {session.name}: 0 segments of {cut.length} frames remain for training, "
        f"out of {len(session.trial)} frames:\n"
        f"  {len(session.trial) - possible.sum():>9} starts removed: trial too short or its end too near\n"
        f"  {possible[~(training | left_out)].sum():>9} starts removed: trials of the validation and test tiers\n"
        f"  {possible[left_out].sum():>9} starts removed: trials left out by config.data.spike_fraction\n"
        f"  {possible[training].sum():>9} starts removed: {without}\n"
        f"Check {'valid' if session.unit_ids else 'gaze'}.npy and tier.npy of {session.folder}"
    )


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, session: int, count: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch, session]).permutation(count)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Cuts requests of all sessions; the same from the same (seed, step) at any time, in any process.

    Attributes:
      sessions: in the order of the batch layout.
      kept: for each session, True at the units that are scored.
      cut: length of the segments.
      weights: of each session in training, mean 1.
      seed: of the epochs' permutations, >= 0.
      emphasis: on contrast, early in training; None for none.
    """

    sessions: tuple[Session, ...]
    kept: tuple[Bool[np.ndarray, "_"], ...]
    cut: Cut
    weights: tuple[float, ...]
    seed: int
    emphasis: Emphasis | None = None

    @functools.cached_property
    def starts(self) -> tuple[Int[np.ndarray, "_"], ...]:
        """Valid starts of the training tier of each session."""
        pairs = zip(self.sessions, self.kept, strict=True)
        return tuple(require_starts(session, self.cut, scored_bins(session, kept)) for session, kept in pairs)

    @functools.cached_property
    def stops(self) -> tuple[Int[np.ndarray, "_"], ...]:
        """End of the trial of each frame of each session."""
        bounds = [trial_bounds(session) for session in self.sessions]
        return tuple(np.repeat(b[:, 1], b[:, 1] - b[:, 0]).astype(np.int32) for b in bounds)

    @functools.cached_property
    def chances(self) -> tuple[Float[np.ndarray, "_"], ...]:
        """Running sums of the chances of the starts of each session; () without emphasis."""
        emphasis, length = self.emphasis, self.cut.length
        if emphasis is None:
            return ()
        return tuple(emphasis.cumulative(index, starts, length) for index, starts in enumerate(self.starts))

    def share(self, batch_size: int) -> int:
        """Returns the number of segments of each session in a batch.

        Raises:
          ConfigError: the batch cannot hold the same number of each.
        """
        sessions = len(self.sessions)
        if batch_size < sessions or batch_size % sessions:
            raise ConfigError(
                f"config.data.batch_size: batch size {batch_size} is not a multiple of the {sessions} sessions; a "
                "batch holds as many segments of each, in training in each of config.optim.micro_batches: take a "
                f"multiple of {sessions} times these"
            )
        return batch_size // sessions

    def train(self, step: int, batch_size: int) -> Request:
        """Returns the request of a step: each session runs through all its starts, in a new order each epoch.

        While there is emphasis on contrast, segments drawn by it take the places of some, which their epoch then lacks.
        """
        share = self.share(batch_size)
        columns = [self._epoch_starts(index, step * share, share) for index in range(len(self.sessions))]
        if self.emphasis is not None:
            pairs = zip(self.starts, self.chances, strict=True)
            columns = [
                self.emphasis.redraw((self.seed, step, index), columns[index], pair)
                for index, pair in enumerate(pairs)
            ]
        start = np.stack(columns, axis=1)
        weights = np.asarray(self.weights, np.float32)[None, :, None]
        return self._request(start, np.broadcast_to(weights, (*start.shape, self.cut.predicted)))

    def _epoch_starts(self, session: int, first: int, share: int) -> Int[np.ndarray, " share"]:
        starts = self.starts[session]
        epochs, places = np.divmod(np.arange(first, first + share), len(starts))
        orders = {
            epoch: _permutation(self.seed, epoch, session, len(starts))
            for epoch in np.unique(epochs).tolist()
        }
        return starts[
            [orders[epoch][place] for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)]
        ]

    def evaluation(self, tier: int, batch_size: int) -> Iterator[Request]:
        """Yields requests that score each valid bin with burn_in frames of its trial before it exactly once.

        The order is random and always the same, so that the first batches stand for the tier, and neighbours in a
        batch are not neighbours in time. Where a session has no segment left, some of its own come again, uncounted.
        """
        share = self.share(batch_size)
        tiles = [self._dealt_tiles(index, tier) for index in range(len(self.sessions))]
        for first in range(0, max(len(start) for start, _ in tiles), share):
            places = np.arange(first, first + share)
            starts = [start[places % len(start)] if len(start) else 0 * places for start, _ in tiles]
            counted = [_counted_once(counted, places) for _, counted in tiles]
            yield self._request(np.stack(starts, axis=1), np.stack(counted, axis=1))

    def _dealt_tiles(self, session: int, tier: int) -> tuple[Any, Any]:
        start, counted = self.tiles(session, tier)
        order = _permutation(0, tier, session, len(start))
        return start[order], counted[order]

    def tiles(
        self, session: int, tier: int
    ) -> tuple[Int[np.ndarray, " tiles"], Shaped[np.ndarray, "tiles predicted"]]:
        """Returns starts and counted bins that tile the trials of a tier.

        The last tile of a trial ends with it. A trial longer than burn_in but shorter than a segment is one
        tile, whose last frame is held; causal models do not see it.
        """
        opened, predicted = self.sessions[session], self.cut.predicted
        first, end = trial_bounds(opened).T
        first, end = first[opened.tier[first] == tier] + self.cut.burn_in, end[opened.tier[first] == tier]
        number = np.maximum(-(-(end - first) // predicted), 0)
        first, end = np.repeat(first, number), np.repeat(end, number)
        place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        wanted = first + place * predicted
        begin = np.maximum(np.minimum(wanted, end - predicted), first)
        bins = begin[:, None] + np.arange(predicted)[None]
        fresh = (bins >= wanted[:, None]) & (bins < end[:, None])
        fresh &= scored_bins(opened, self.kept[session])[np.minimum(bins, end[:, None] - 1)]
        some = fresh.any(axis=1)
        return (begin - self.cut.burn_in)[some].astype(np.int32), fresh[some].astype(np.float32)

    def _request(self, start: np.ndarray, counted: np.ndarray) -> Request:
        stop = np.stack([self.stops[s][start[:, s]] for s in range(start.shape[1])], axis=1)
        flat = {"start": start.reshape(-1), "stop": stop.reshape(-1)}
        return {**flat, "counted": np.ascontiguousarray(counted.reshape(-1, self.cut.predicted), np.float32)}


def _counted_once(
    counted: Shaped[np.ndarray, "tiles predicted"], places: Int[np.ndarray, " share"]
) -> Shaped[np.ndarray, "share predicted"]:
    """Returns which bins of the tiles at these places count: of places beyond the last tile none does."""
    found = np.zeros((len(places), counted.shape[1]), counted.dtype)
    inside = places < len(counted)
    found[inside] = counted[places[inside]]
    return found
