"""The finished runs of a study, read from their reports, and the numbers of the units that they share."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from polarjax.core import CheckpointError
from polarjax.engine import archive
from polarjax.engine.workdir import flat_config
from polarjax.reports.numbers import without_nan
from polarjax.reports.statistics import PairedDifference, paired_difference

BITS, ORACLE, CORRELATION = "bits_per_spike", "oracle_bits_per_spike", "correlation_median"
TRIAL_MEAN = "trial_mean_correlation_median"


class Result(NamedTuple):
    """A finished run of a study.

    Attributes:
      row: of study.csv.
      units: {(session, unit): (bits per spike, the oracle's, spikes)}, NaN where undefined.
      floor: bits per spike of the linear-nonlinear model that was trained with it, None without one.
      sessions: {name: fingerprint} of the data that the bits per spike are of; {} without bits per spike.
      dynamics: config.model.kwargs.dynamics, None for a model without.
    """

    row: dict[str, Any]
    units: dict[tuple[str, str], tuple[float, ...]]
    floor: float | None
    sessions: dict[str, str]
    dynamics: str | None


def read_result(
    entry: str,
    seed: int,
    report: Path,
    times: tuple[int, float | None, float],
    metrics: Mapping[str, float] | None = None,
) -> Result:
    """Reads what the report of a run says; a run without spikes may lack all that is said of units.

    Args:
      report: folder of the report, <run>/eval/<step>.
      times: steps, seconds of training steps (None where the log has none), and wall-clock seconds of all attempts.
      metrics: of the last evaluation of the run, each a column.

    Raises:
      CheckpointError: the report or the checkpoint that it is of is damaged.
    """
    fields = _read_fields(report)
    meta = archive.read_meta(report.parents[1], int(report.name))
    bits, oracle, floor, correlation = (
        fields.get(name) or {} for name in (BITS, ORACLE, "linear_nonlinear", "correlation")
    )
    row = {
        "entry": entry,
        "seed": seed,
        "num_steps": times[0],
        "checkpoint_step": fields["checkpoint_step"],
        BITS: bits.get("mean"),
        "bits_per_spike_median": bits.get("median"),
        CORRELATION: correlation.get("median"),
        TRIAL_MEAN: (correlation.get("with_trial_mean") or {}).get("median"),
        ORACLE: oracle.get("mean"),
        "oracle_fraction": fields.get("oracle_fraction"),
        "parameters": fields["parameters"],
        "training_seconds": times[1],
        "wall_clock_seconds": times[2],
    }
    starts = fields.get("constants_start", {})  # reports of earlier versions have no starts
    for name, value in fields.get("constants", {}).items():
        end = name.split("/")[-1]
        row |= {f"{end}_start": starts.get(name), end: value}
    row |= metrics or {}
    sessions = {session["name"]: session["fingerprint"] for session in meta["info"]["sessions"]}
    return Result(
        row,
        _read_units(report / "units.csv"),
        floor.get("mean"),
        {} if row[BITS] is None else sessions,
        flat_config(meta["config"]).get("model.kwargs.dynamics"),
    )


def mean_of_report(report: Path) -> float | None:
    """Reads the bits per spike of a run, mean over units; None where it has none.

    Raises:
      CheckpointError: the report is damaged.
    """
    return (_read_fields(report).get(BITS) or {}).get("mean")


def runs_of(entry: str, results: Sequence[Result]) -> dict[int, Result]:
    """The finished runs of an entry by their seeds."""
    return {result.row["seed"]: result for result in results if result.row["entry"] == entry}


def units_of(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Every (session, unit) that a run has."""
    return list(dict.fromkeys(key for result in results for key in result.units))


def compare(
    own: Mapping[int, Result], reference: Mapping[int, Result], units: Sequence[tuple[str, str]]
) -> PairedDifference:
    """Difference to the reference over the seeds that both have; NaN for units that one of these runs lacks."""
    seeds = [seed for seed in own if seed in reference]
    return paired_difference(*(_bits([runs[seed] for seed in seeds], units) for runs in (own, reference)))


def mean_bits(results: Collection[Result], units: Sequence[tuple[str, str]]) -> Float[np.ndarray, " N"]:
    """Bits per spike of every unit, averaged over runs; NaN where one of them has none."""
    bits = _bits(results, units)
    return bits.mean(axis=0) if len(bits) else np.full(len(units), np.nan)


def _read_fields(report: Path) -> dict[str, Any]:
    path = report / "report.json"
    try:
        return without_nan(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); write it again: python eval.py --workdir {report.parents[1]}"
        ) from None


def _read_units(path: Path) -> dict[tuple[str, str], tuple[float, ...]]:
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as stream:
        return {
            (line["session"], line["unit"]): tuple(
                float(line.get(name) or "nan") for name in (BITS, ORACLE, "spikes")
            )
            for line in csv.DictReader(stream)
        }


def _bits(results: Collection[Result], units: Sequence[tuple[str, str]]) -> Float[np.ndarray, "K N"]:
    nothing = (np.nan,) * 3
    bits = [[result.units.get(unit, nothing)[0] for unit in units] for result in results]
    return np.asarray(bits, np.float64).reshape(len(bits), len(units))
