"""Sessions larger than the device: background threads read the segments of coming steps from the memory maps.

A request then carries the raw bytes of its rows. With several processes each reads only its own rows of the
global batch, the block [p B / P, (p + 1) B / P) of process p of P;
`jax.make_array_from_process_local_data(sharding, rows, (B, ..))` makes the global array of them (and also of
the whole, small requests of resident storage).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer, Shaped

from polarjax.core import Batch, ConfigError, DataError
from polarjax.data.assemble import Layout, Segments, batch_of, corners, recorded
from polarjax.data.segments import Request, Sampler
from polarjax.data.sessions import Session

THREADS = 2
STEPS_AHEAD = 4
ATTEMPTS = 3
PAUSE_S = 0.2
BEYOND_ANY_RUN = 2**40


class Reader:
    """Reads the bytes that requests name; in training in the order of the steps, ahead of time.

    Attributes:
      sampler: which segments are cut.
      batch_size: of the global batch in training.
      whole: every process reads all rows, for what one process does alone.
    """

    def __init__(self, sampler: Sampler, batch_size: int, *, whole: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.whole = whole
        self._coming: Any = None
        self._step = -1

    def train(self, step: int) -> Request:
        """Returns this process's rows of the request of a step; reads ahead as long as steps follow each other."""
        if self._coming is None or step != self._step:
            self.close()
            self._coming = iter(self._from(step))
        self._step = step + 1
        return next(self._coming)

    def _from(self, step: int) -> Any:
        steps = grain.MapDataset.range(step, BEYOND_ANY_RUN)
        requests = steps.map(lambda number: self.read(self.sampler.train(int(number), self.batch_size)))
        return requests.to_iter_dataset(
            grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=STEPS_AHEAD)
        )

    def evaluation(self, tier: int, batch_size: int) -> Iterator[Request]:
        """Yields this process's rows of the requests of `Sampler.evaluation`, read ahead."""
        requests = list(self.sampler.evaluation(tier, batch_size))
        if not requests:
            return
        reading = grain.MapDataset.source(requests).map(self.read)
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=STEPS_AHEAD)
        coming = iter(reading.to_iter_dataset(options))
        try:
            yield from coming
        finally:
            coming.close()

    def read(self, request: Request) -> dict[str, Shaped[np.ndarray, "rows ..."]]:
        """Returns the rows of this process with the bytes they name, and where these are from.

        Raises:
          DataError: a session cannot be read any more.
        """
        number = len(request["start"])
        rows = slice(0, number) if self.whole else process_rows(number)
        parts = [self._segments(int(row), request) for row in range(rows.start, rows.stop)]
        stacked = {
            name: _padded([part[name] for part in parts], self._forms[name]) for name in Segments._fields
        }
        return {**{name: values[rows] for name, values in request.items()}, **stacked}

    @functools.cached_property
    def _forms(self) -> dict[str, np.ndarray]:
        """One row that the rows of every session fit into: the same in all processes."""
        firsts = [
            self._segments(row, self.sampler.train(0, len(self.sampler.sessions)))
            for row in range(len(self.sampler.sessions))
        ]
        shapes = {name: np.max([first[name].shape for first in firsts], axis=0) for name in Segments._fields}
        types = {name: np.result_type(*{first[name].dtype for first in firsts}) for name in Segments._fields}
        return {name: np.zeros(tuple(shapes[name].tolist()), types[name]) for name in Segments._fields}

    def _segments(self, row: int, request: Request, attempts: int = ATTEMPTS) -> dict[str, np.ndarray]:
        index = row % len(self.sampler.sessions)
        session, cut = self.sampler.sessions[index], self.sampler.cut
        frame = np.minimum(int(request["start"][row]) + np.arange(cut.length), int(request["stop"][row]) - 1)
        try:
            return read_segment(session, self.sampler.kept[index], frame, cut.burn_in)
        except OSError as error:
            if attempts == 1:
                raise DataError(
                    f"session {session.name} cannot be read any more, at frames {frame[0]} to {frame[-1]} as user "
                    f"{os.getuid()}: {error} ({session.folder}). Make the folder readable for this user, or mount it "
                    "again, and run the same line again"
                ) from error
        time.sleep(PAUSE_S * 2 ** (ATTEMPTS - attempts))
        return self._segments(row, request, attempts - 1)

    def close(self) -> None:
        """Stops reading ahead."""
        if self._coming is not None:
            self._coming.close()
        self._coming = None


def process_rows(batch_size: int) -> slice:
    """Returns which rows of the global batch this process reads.

    Raises:
      ConfigError: the batch cannot be shared by the processes.
    """
    processes, process = jax.process_count(), jax.process_index()
    if batch_size % processes:
        raise ConfigError(
            f"batch size {batch_size} is not a multiple of the {processes} processes that share it"
        )
    share = batch_size // processes
    return slice(process * share, (process + 1) * share)


def read_segment(
    session: Session, kept: Bool[np.ndarray, " N"], frame: Integer[np.ndarray, " T"], burn_in: int
) -> dict[str, np.ndarray]:
    """Reads the frames of one segment; the names are those of `assemble.Segments`."""
    corner, index = corners(session, frame), session.frame_index[frame]
    if session.window is None:
        image = session.movie[index]
    else:
        rows, columns = session.window.patch_shape
        image = np.stack(
            [
                session.movie[i, r : r + rows, c : c + columns]
                for i, (r, c) in zip(index, corner.tolist(), strict=True)
            ]
        )
    bins = frame[burn_in:]
    gaze, spikes = np.asarray(session.gaze[frame]), np.asarray(session.spikes[bins])
    return {
        "image": np.asarray(image),
        "corner": corner,
        "gaze": gaze,
        "spikes": spikes,
        "valid": recorded(session, kept, bins),
    }


def _padded(parts: list[np.ndarray], form: np.ndarray) -> np.ndarray:
    """Stacks the rows of a batch in one form, padded with 0 at the end of each axis."""
    stacked = np.zeros((len(parts), *form.shape), form.dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[tuple(slice(size) for size in part.shape)] = part
    return stacked


def make_fetch(layout: Layout) -> Callable[[Any, Any], Batch]:
    """Returns (resident, request) -> Batch, pure; nothing is resident."""

    def fetch(resident: Any, request: Any) -> Batch:
        request = jax.tree.map(jnp.asarray, request)
        sessions = len(layout.units)
        parts = []
        for index, units in enumerate(layout.units):
            rows = (
                values.reshape(len(values) // sessions, sessions, *values.shape[1:])
                for values in (request[name] for name in Segments._fields)
            )
            part = Segments(*(values[:, index] for values in rows))
            parts.append(part._replace(spikes=part.spikes[..., :units], valid=part.valid[..., :units]))
        return batch_of(layout, parts, request["counted"])

    return fetch
