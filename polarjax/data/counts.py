"""What must hold of the units of a session and their counts, and what a reader is told of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Num, Shaped

from polarjax.data.arrays import Faults
from polarjax.data.checks import chunks

IMPLAUSIBLE_HZ = 1000.0
RECORDED = ("spikes", "valid")
"""A session has both, or it was recorded without spikes and has neither."""
COUNTS = (*RECORDED, "true_rate")


def check_counts_complete(folder: Path, present: Collection[str], unit_ids: object) -> None:
    """Raises a DataError where a session is neither recorded with spikes nor without: it has some of what counts need.

    Args:
      folder: the session folder, for messages.
      present: names of the arrays that there are.
      unit_ids: of session.json; [] where there are no spikes.
    """
    faults, found = Faults(folder), [name for name in RECORDED if name in present]
    remedy = "A session has both and unit_ids, or was recorded without spikes: then it has neither, and unit_ids is []"
    if len(found) == 1:
        (missing,) = set(RECORDED) - set(found)
        raise faults.error(f"{missing}.npy", f"the file is missing, but {found[0]}.npy is there", remedy)
    if not found and unit_ids != []:
        given = f"lists {len(unit_ids)} units" if isinstance(unit_ids, list) else f"is {unit_ids!r}"
        raise faults.error(
            "session.json", f"unit_ids {given}, but spikes.npy and valid.npy are missing", remedy
        )


def check_unit_ids(folder: Path, unit_ids: object, recorded: bool) -> tuple[str, ...]:
    """Returns the unit ids as strings; () where no spikes were recorded.

    Raises:
      DataError: no list, empty although spikes were recorded, or duplicates (named).
    """
    faults = Faults(folder)
    if not isinstance(unit_ids, list) or (recorded and not unit_ids):
        remedy = "Expected a list of at least one name, or neither spikes.npy nor valid.npy"
        raise faults.error("session.json", f"unit_ids is {unit_ids!r}", remedy)
    names = tuple(str(name) for name in unit_ids)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise faults.error(
            "session.json", f"unit_ids holds {', '.join(twice)} more than once", "One name a column"
        )
    return names


def without_counts(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of session.json as they would be of the same session recorded without spikes."""
    digests = {file: value for file, value in fields["sha256"].items() if Path(file).stem not in COUNTS}
    return {**fields, "unit_ids": [], "sha256": digests}


def read_counts(
    folder: Path,
    unit_ids: tuple[str, ...],
    arrays: dict[str, Shaped[np.ndarray, "..."]],
    usable: Bool[np.ndarray, " T"],
    rate_hz: float,
) -> tuple[Num[np.ndarray, "T N"], Bool[np.ndarray, "T _"], tuple[str, ...], tuple[str, ...]]:
    """Returns spikes, valid, the silent units and the notes of a session; without units, no count of any frame.

    Args:
      folder: the session folder, for messages.
      unit_ids: N names; () for a session without spikes.
      arrays: name -> values.
      usable: where gaze and image are finite: what is valid without units.
      rate_hz: bins per second.

    Raises:
      DataError: as `check_spikes`.
    """
    if not unit_ids:
        return np.zeros((len(usable), 0), np.uint8), usable[:, None], (), ()
    spikes, valid = arrays["spikes"], arrays["valid"]
    check_spikes(folder, spikes, valid)
    return spikes, valid, *count_notes(unit_ids, spikes, valid, rate_hz)


def check_spikes(folder: Path, spikes: Num[np.ndarray, "T N"], valid: Bool[np.ndarray, "T _"]) -> None:
    """Raises a DataError for a count that is negative, not whole or not finite in a valid bin."""
    if spikes.dtype != np.float32:
        return
    for rows in chunks(len(spikes)):
        counts, scored = spikes[rows], np.broadcast_to(valid[rows], spikes[rows].shape)
        bad = scored & ~(np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts)))
        if bad.any():
            frame, unit = np.argwhere(bad)[0].tolist()
            value = counts[frame, unit]
            kind = "not finite" if not np.isfinite(value) else "negative" if value < 0 else "not whole"
            problem = f"count {value:g} of unit column {unit} at frame {rows.start + frame} is {kind}"
            remedy = "Expected whole spikes/bin >= 0; set valid False where there was no recording"
            raise Faults(folder).error("spikes.npy", problem, remedy)


def check_true_rate(folder: Path, rate: Num[np.ndarray, "T N"]) -> None:
    """Raises a DataError for a rate that is negative or not finite."""
    for rows in chunks(len(rate)):
        bad = ~(np.isfinite(rate[rows]) & (rate[rows] >= 0))
        if bad.any():
            frame, unit = np.argwhere(bad)[0].tolist()
            problem = f"is {rate[rows][frame, unit]:g} at frame {rows.start + frame}, unit column {unit}"
            raise Faults(folder).error("true_rate.npy", problem, "Expected finite spikes/bin >= 0")


def count_notes(
    unit_ids: tuple[str, ...],
    spikes: Num[np.ndarray, "T N"],
    valid: Bool[np.ndarray, "T _"],
    rate_hz: float,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the ids of the units without a spike in valid bins, and what a reader should know of the counts.

    Args:
      unit_ids: N >= 1 names.
      spikes: counts per bin.
      valid: where a count was recorded.
      rate_hz: bins per second.
    """
    total, largest = np.zeros(len(unit_ids)), 0.0
    for rows in chunks(len(spikes)):
        counts = np.where(valid[rows], spikes[rows], 0)
        total += counts.sum(axis=0, dtype=np.float64)
        largest = max(largest, float(counts.max()))
    silent = tuple(name for name, count in zip(unit_ids, total, strict=True) if count == 0)
    notes = ()
    if silent:
        notes += (f"{len(silent)} of {len(unit_ids)} units without a spike: {', '.join(silent)}",)
    if largest * rate_hz > IMPLAUSIBLE_HZ and np.asarray(valid).any(axis=1).mean() > 0.5:
        notes += (
            f"{largest:g} spikes in a bin of {1e3 / rate_hz:.3g} ms is {largest * rate_hz:.0f} spikes/s; check rate_hz",
        )
    return silent, notes
