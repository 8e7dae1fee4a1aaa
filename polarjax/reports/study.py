"""A study in numbers: study.json, study.csv (a row a run), entries.csv, units.csv (a row a unit), study.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polarjax.core import FORMAT_VERSION
from polarjax.reports import study_page
from polarjax.reports.evaluate import csv_text, write_files
from polarjax.reports.numbers import without_nan
from polarjax.reports.statistics import known_interval, t_interval
from polarjax.reports.study_results import (
    BITS,
    CORRELATION,
    ORACLE,
    TRIAL_MEAN,
    Result,
    compare,
    mean_bits,
    runs_of,
    units_of,
)


class Question(NamedTuple):
    """What a study asks.

    Attributes:
      name: of the study.
      text: the question.
      reference: the entry that the others are compared with.
      references: {entry: reference} of those that are compared with another one.
      seeds: that every entry is to have.
      entries: {name: what it is}, in the order of the table.
      constants: ends of the names of the learned constants to show.
      truth: {constant: value} where it is known.
      metrics: of the last evaluation during training, to show.
    """

    name: str
    text: str
    reference: str
    references: Mapping[str, str]
    seeds: tuple[int, ...]
    entries: dict[str, str]
    constants: tuple[str, ...]
    truth: dict[str, float]
    metrics: tuple[str, ...] = ()

    def reference_of(self, name: str) -> str | None:
        """The entry that an entry is compared with; None for the reference."""
        return None if name == self.reference else self.references.get(name, self.reference)


def summarize_study(
    question: Question, results: Sequence[Result], failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What study.json says: a summary an entry, oracle, floor, what failed and what is not trained yet.

    Returns:
      JSON values. `difference` of an entry is to the same seeds of its `reference`: its mean over units and seeds, the
      mean of `each` seed, its intervals `over_units` and `over_seeds`, how many units are better, and a verdict:
      'better' or 'worse' where both intervals lie on one side of 0, else 'open'. It is None for the reference, where
      no seed is common, and for an entry without bits per spike, which prepares others and is compared with none.
    """
    failed = [(failure["entry"], failure["seed"]) for failure in failures]
    oracles = [result.row[ORACLE] for result in results if result.row[ORACLE] is not None]
    floors = [result.floor for result in results if result.floor is not None]
    fields = {
        "format_version": FORMAT_VERSION,
        "study": question.name,
        "question": question.text,
        "reference": question.reference,
        "seeds": list(question.seeds),
        "oracle": float(np.mean(oracles)) if oracles else None,
        "floor": float(np.mean(floors)) if floors else None,
        "sessions": {name: value for result in results for name, value in result.sessions.items()},
        "entries": [_entry(question, name, results) for name in question.entries],
        "failures": list(failures),
        "missing": [
            {"entry": name, "seed": seed}
            for name in question.entries
            for seed in question.seeds
            if seed not in runs_of(name, results) and (name, seed) not in failed
        ],
    }
    return without_nan(fields)


def write_study(
    question: Question,
    results: Sequence[Result],
    failures: Sequence[Mapping[str, Any]],
    workdir: Path,
) -> dict[str, Any]:
    """Writes study.json, its CSV files and study.html; without a finished run only the first and the last.

    Returns:
      The fields of study.json.

    Raises:
      CheckpointError: the storage refuses the files.
    """
    summary: dict[str, Any] = {**summarize_study(question, results, failures), "workdir": str(workdir)}
    contents = {"study.json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    if results:
        contents["study.csv"] = csv_text(_run_rows(summary, results))
        contents["entries.csv"] = csv_text([_entry_row(entry) for entry in summary["entries"]])
        units = _unit_rows(question, results)
        contents |= {"units.csv": csv_text(units)} if units else {}
    contents["study.html"] = study_page.study_html(summary, question.truth)
    write_files(workdir, contents)
    return summary


def _entry(question: Question, name: str, results: Sequence[Result]) -> dict[str, Any]:
    own, reference = runs_of(name, results), question.reference_of(name)
    rows = [result.row for result in own.values()]
    return {
        "name": name,
        "config": question.entries[name],
        "reference": reference,
        "dynamics": next((result.dynamics for result in own.values()), None),
        "seeds": list(own),
        BITS: _over_seeds(rows, BITS),
        "oracle_fraction": _over_seeds(rows, "oracle_fraction")["mean"],
        CORRELATION: _over_seeds(rows, CORRELATION)["mean"],
        TRIAL_MEAN: _over_seeds(rows, TRIAL_MEAN),
        "difference": None if reference is None else _difference(own, runs_of(reference, results), results),
        "num_steps": [row["num_steps"] for row in rows],
        "parameters": rows[0]["parameters"] if rows else None,
        "training_seconds": _over_seeds(rows, "training_seconds")["mean"],
        "wall_clock_seconds": _over_seeds(rows, "wall_clock_seconds")["mean"],
        "constants": {
            end: {"start": rows[0].get(f"{end}_start")} | _over_seeds(rows, end)
            for end in question.constants
            if rows and end in rows[0]
        },
        "metrics": {name: _over_seeds(rows, name) for name in question.metrics},
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Any]:
    values = [row[column] for row in rows if row.get(column) is not None]
    return {
        "mean": float(np.mean(values)) if values else None,
        "interval": known_interval(t_interval(values)),
        "each": values,
    }


def _difference(own, reference, results):
    found = compare(own, reference, units_of(results))
    known = found.units[np.isfinite(found.units)]
    if known.size == 0:
        return None
    intervals = [known_interval(bounds) for bounds in (found.over_units, found.over_seeds)]
    return {
        "mean": float(known.mean()),
        "over_units": intervals[0],
        "over_seeds": intervals[1],
        "each": found.each.tolist(),
        "seeds": [seed for seed in own if seed in reference],
        "units": len(known),
        "units_better": int((known > 0).sum()),
        "verdict": _verdict(intervals),
    }


def _verdict(intervals: Sequence[list[float] | None]) -> str:
    """Says 'better' or 'worse' where every interval is known and lies on one side of 0."""
    if all(bounds is not None and bounds[0] > 0 for bounds in intervals):
        return "better"
    return "worse" if all(bounds is not None and bounds[1] < 0 for bounds in intervals) else "open"


def _run_rows(summary: Mapping[str, Any], results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row a run, with its difference to the run of its reference of the same seed."""
    found = [(entry["name"], entry["difference"]) for entry in summary["entries"] if entry["difference"]]
    each = {
        (name, seed): value
        for name, difference in found
        for seed, value in zip(difference["seeds"], difference["each"], strict=True)
    }
    names = list(dict.fromkeys(name for result in results for name in result.row))
    return [
        dict.fromkeys(names) | row | {"difference": each.get((row["entry"], row["seed"]))}
        for row in (result.row for result in results)
    ]


def _entry_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A row of entries.csv: what an entry reaches and its difference to its reference, each with its intervals."""
    found = entry["difference"] or {}
    row = {"entry": entry["name"], "seeds": len(entry["seeds"])}
    for name in (BITS, TRIAL_MEAN):
        row |= {name: entry[name]["mean"]} | _bounds(name, entry[name]["interval"])
    row |= {"reference": entry["reference"], "difference": found.get("mean")}
    for name in ("over_units", "over_seeds"):
        row |= _bounds(f"difference_{name}", found.get(name))
    return row | {name: found.get(name) for name in ("units", "units_better", "verdict")}


def _bounds(name: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _unit_rows(question: Question, results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row a unit: every entry's bits per spike over its seeds, and the difference over those of its reference too.

    Entries whose finished runs have no bits per spike have no column.
    """
    units, runs = units_of(results), {name: runs_of(name, results) for name in question.entries}
    runs = {name: own for name, own in runs.items() if not own or any(_has_bits(run) for run in own.values())}
    means = {name: mean_bits(own.values(), units) for name, own in runs.items()}
    differences = {
        f"{name} - {reference}": compare(own, runs_of(reference, results), units).units
        for name, own in runs.items()
        if (reference := question.reference_of(name)) is not None
    }
    rows = []
    for index, unit in enumerate(units):
        having = [result for result in results if unit in result.units]
        _, oracle, spikes = next(filter(_has_bits, having), having[0]).units[unit]
        row = {"session": unit[0], "unit": unit[1], "spikes": spikes, ORACLE: oracle}
        rows.append(row | {name: values[index].item() for name, values in (means | differences).items()})
    return rows


def _has_bits(result: Result) -> bool:
    return result.row[BITS] is not None
