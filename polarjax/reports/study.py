"""The runs of a study in numbers: study.json, study.csv (a row a run), units.csv (a row a unit), study.html."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polarjax.core import FORMAT_VERSION
from polarjax.engine.archive import read_meta
from polarjax.reports import study_page
from polarjax.reports.evaluate import csv_text, write_files
from polarjax.reports.numbers import without_nan
from polarjax.reports.statistics import paired_difference, t_interval

BITS, ORACLE, CORRELATION = "bits_per_spike", "oracle_bits_per_spike", "correlation_median"
STARTS = {"tau_fix_ms": "fixation_rate", "tau_sac_ms": "saccade_rate"}
DECAYS = {"tau_fast_ms": "alpha_fast", "tau_slow_ms": "alpha_slow"}


class Question(NamedTuple):
    """What a study asks.

    Attributes:
      name: of the study.
      text: the question.
      reference: the entry that all others are compared with.
      seeds: that every entry is to have.
      entries: {name: what it is}, in the order of the table.
      constants: ends of the names of the learned constants to show.
      truth: {constant: value} where it is known.
    """

    name: str
    text: str
    reference: str
    seeds: tuple[int, ...]
    entries: dict[str, str]
    constants: tuple[str, ...]
    truth: dict[str, float]


class Result(NamedTuple):
    """A finished run of a study.

    Attributes:
      row: of study.csv.
      units: {(session, unit): (bits per spike, the oracle's, spikes)}, NaN where undefined.
      floor: bits per spike of the linear-nonlinear model that was trained with it, None without one.
    """

    row: dict[str, Any]
    units: dict[tuple[str, str], tuple[float, ...]]
    floor: float | None


def read_result(
    entry: str, seed: int, report: Path, settings: Mapping[str, Any], times: tuple[int, float | None, float]
) -> Result:
    """Reads what the report of a run and its config say.

    Args:
      report: folder of the report, <run>/eval/<step>.
      settings: the resolved config.
      times: steps, seconds of training steps (None where the log has none), and wall-clock seconds of all attempts.
    """
    fields = json.loads((report / "report.json").read_text(encoding="utf-8"))
    rate_hz = read_meta(report.parents[1], fields["checkpoint_step"])["info"]["rate_hz"]
    oracle, floor = fields[ORACLE] or {}, fields["linear_nonlinear"] or {}
    row = {
        "entry": entry,
        "seed": seed,
        "num_steps": times[0],
        "checkpoint_step": fields["checkpoint_step"],
        BITS: fields[BITS]["mean"],
        "bits_per_spike_median": fields[BITS]["median"],
        CORRELATION: fields["correlation"]["median"],
        "trial_mean_correlation_median": (fields["correlation"]["with_trial_mean"] or {}).get("median"),
        ORACLE: oracle.get("mean"),
        "oracle_fraction": fields["oracle_fraction"],
        "parameters": fields["parameters"],
        "training_seconds": times[1],
        "wall_clock_seconds": times[2],
    }
    starts = starting_constants(settings["model"]["kwargs"], rate_hz)
    for name, value in fields["constants"].items():
        end = name.split("/")[-1]
        row |= {f"{end}_start": starts.get(end), end: value}
    with open(report / "units.csv", encoding="utf-8", newline="") as stream:
        units = {
            (line["session"], line["unit"]): tuple(
                float(line[name] or "nan") for name in (BITS, ORACLE, "spikes")
            )
            for line in csv.DictReader(stream)
        }
    return Result(row, units, floor.get("mean"))


def starting_constants(kwargs: Mapping[str, Any], rate_hz: float) -> dict[str, float]:
    """Memories in ms that the options of a model start from: 1000/rate, and -1000/(rate_hz ln alpha)."""
    memories = {end: 1e3 / kwargs[name] for end, name in STARTS.items() if name in kwargs}
    decays = {end: -1e3 / rate_hz / math.log(kwargs[name]) for end, name in DECAYS.items() if name in kwargs}
    return memories | decays


def summarize_study(
    question: Question, results: Sequence[Result], failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What study.json says: a summary an entry, oracle, floor, and what failed.

    Returns:
      JSON values. `difference` of an entry is to the same seeds of the reference: its mean over units, the interval
      of that mean, and how many units are better; None for the reference and where no seed is common.
    """
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
        "entries": [_entry(question, name, results) for name in question.entries],
        "failures": list(failures),
    }
    return without_nan(fields)


def write_study(
    question: Question,
    results: Sequence[Result],
    failures: Sequence[Mapping[str, Any]],
    workdir: Path,
) -> dict[str, Any]:
    """Writes study.json, study.csv, units.csv and study.html; without a finished run only the first and the last.

    Returns:
      The fields of study.json.

    Raises:
      CheckpointError: the storage refuses the files.
    """
    summary = {**summarize_study(question, results, failures), "workdir": str(workdir)}
    contents = {"study.json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    if results:
        names = list(dict.fromkeys(name for result in results for name in result.row))
        contents["study.csv"] = csv_text([dict.fromkeys(names) | result.row for result in results])
        contents["units.csv"] = csv_text(_unit_rows(question, results))
    contents["study.html"] = study_page.study_html(summary, question.truth)
    write_files(workdir, contents)
    return summary


def _entry(question: Question, name: str, results: Sequence[Result]) -> dict[str, Any]:
    own = _runs_of(name, results)
    rows = [result.row for result in own.values()]
    return {
        "name": name,
        "config": question.entries[name],
        "seeds": list(own),
        BITS: _over_seeds(rows, BITS),
        "oracle_fraction": _over_seeds(rows, "oracle_fraction")["mean"],
        CORRELATION: _over_seeds(rows, CORRELATION)["mean"],
        "difference": None if name == question.reference else _difference(question, own, results),
        "num_steps": [row["num_steps"] for row in rows],
        "parameters": rows[0]["parameters"] if rows else None,
        "training_seconds": _over_seeds(rows, "training_seconds")["mean"],
        "wall_clock_seconds": _over_seeds(rows, "wall_clock_seconds")["mean"],
        "constants": {
            end: {"start": rows[0].get(f"{end}_start")} | _over_seeds(rows, end)
            for end in question.constants
            if rows and end in rows[0]
        },
    }


def _over_seeds(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Any]:
    values = [row[column] for row in rows if row.get(column) is not None]
    return {
        "mean": float(np.mean(values)) if values else None,
        "interval": None if len(values) < 2 else list(t_interval(values)),
        "each": values,
    }


def _difference(question, own, results):
    reference = _runs_of(question.reference, results)
    seeds = [seed for seed in own if seed in reference]
    units = _common_units([runs[seed] for seed in seeds for runs in (own, reference)])
    if not units:
        return None
    values, others = (_bits([runs[seed] for seed in seeds], units) for runs in (own, reference))
    difference, interval = paired_difference(values, others)
    known = difference[np.isfinite(difference)]
    if known.size == 0:
        return None
    return {
        "mean": float(known.mean()),
        "interval": list(interval),
        "seeds": seeds,
        "units": len(known),
        "units_better": int((known > 0).sum()),
    }


def _unit_rows(question: Question, results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row a unit: every entry's bits per spike, averaged over its seeds, and the difference to the reference."""
    units = list(dict.fromkeys(key for result in results for key in result.units))
    means = {name: _mean_bits(_runs_of(name, results).values(), units) for name in question.entries}
    rows = []
    for index, unit in enumerate(units):
        _, oracle, spikes = next(result.units[unit] for result in results if unit in result.units)
        row = {"session": unit[0], "unit": unit[1], "spikes": spikes, ORACLE: oracle}
        row |= {name: values[index].item() for name, values in means.items()}
        for name, values in means.items():
            if name != question.reference:
                row[f"{name} - {question.reference}"] = (values - means[question.reference])[index].item()
        rows.append(row)
    return rows


def _runs_of(name, results):
    return {result.row["seed"]: result for result in results if result.row["entry"] == name}


def _common_units(results):
    if not results:
        return []
    return [key for key in results[0].units if all(key in result.units for result in results)]


def _bits(results, units):
    nothing = (math.nan,) * 3
    bits = [[result.units.get(unit, nothing)[0] for unit in units] for result in results]
    return np.asarray(bits, np.float64).reshape(len(bits), len(units))


def _mean_bits(results, units):
    bits = _bits(results, units)
    return bits.mean(axis=0) if len(bits) else np.full(len(units), np.nan)
