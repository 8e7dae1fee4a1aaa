"""Two runs, unit by unit: who is predicted better by which, and how sure that is; pair.json, units.csv, pair.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polarjax import metrics
from polarjax.core import FORMAT_VERSION, CheckpointError, DataError
from polarjax.reports import pair_page
from polarjax.reports.evaluate import (
    TEST_TIER,
    csv_text,
    predict_run,
    report_folder,
    write_files,
    write_report,
)
from polarjax.reports.numbers import TIER_NAMES, without_nan
from polarjax.reports.predictions import SessionPrediction
from polarjax.reports.runs import Run, open_run
from polarjax.reports.statistics import gain_interval, known_interval, trial_gains

WORKDIR = Path("runs/pairs")


def compare_runs(
    first: str | Path, second: str | Path, workdir: str | Path | None = None, tier: int = TEST_TIER
) -> dict[str, Any]:
    """Compares the best checkpoints of two runs on the bins that both predict, and writes what was found.

    A run without a report gets one. A unit is gained (lost) where the 95 % interval of its difference over trials
    lies above (below) 0.

    Args:
      first: work directory of a run.
      second: of the other; a difference is second - first.
      workdir: where to write; None is `pair_folder`'s.

    Returns:
      The fields of pair.json.

    Raises:
      CheckpointError: a folder holds no run, or a file cannot be written.
      DataError: the runs have no session in common, or one whose arrays differ.
    """
    runs = [open_run(folder) for folder in (first, second)]
    names, sessions = _names(runs), _common_sessions(runs)
    predictions = [_predict(run, tier) for run in runs]
    rows = unit_rows(predictions[0], predictions[1], sessions, runs[0].info.rate_hz)
    folder = pair_folder(first, second, workdir)
    summary = without_nan(
        {
            "format_version": FORMAT_VERSION,
            "runs": [_describe(run, name) for run, name in zip(runs, names, strict=True)],
            "tier": TIER_NAMES[tier],
            **summarize_pair(rows),
            "workdir": str(folder),
        }
    )
    contents = {
        "pair.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        "units.csv": csv_text(rows),
        "pair.html": pair_page.pair_html(summary, rows),
    }
    write_files(folder, contents)
    return summary


def pair_folder(first: str | Path, second: str | Path, workdir: str | Path | None = None) -> Path:
    """Where the comparison of two runs is written: a place of its own for every pair of folders.

    Returns:
      `workdir` where it is given. Else the parents that both share, and in them both names with the parents that they
      do not: runs/pairs/studies/v1_models/polar_minimal-seed0,polar-seed0.
    """
    if workdir is not None:
        return Path(workdir)
    left, right = _place(first), _place(second)
    length = 0
    while length < min(len(left), len(right)) - 1 and left[length] == right[length]:
        length += 1
    names = ("-".join(place[length:]) for place in (left, right))
    return WORKDIR.joinpath(*left[:length], ",".join(names))


def unit_rows(
    first: Sequence[SessionPrediction],
    second: Sequence[SessionPrediction],
    sessions: Sequence[str],
    rate_hz: float,
) -> list[dict[str, Any]]:
    """A row a unit of the common sessions, on the bins that both runs score.

    Returns:
      session, unit, groups (of `trial_groups`), spikes, first and second (bits per spike), difference with the bounds
      of its interval, low and high, and a verdict: 'gained', 'lost' or 'open'. NaN without spikes; bounds are NaN and
      the verdict is 'open' where there are too few groups.
    """
    rows = []
    for session in sessions:  # those with units: `_common_sessions`
        left, right = (
            next(entry for entry in side if entry.info.name == session) for side in (first, second)
        )
        scored, null = left.scored & right.scored, left.info.mean_count
        bits = [metrics.bits_per_spike(side.rate, left.spikes, scored, null) for side in (left, right)]
        gain, spikes = trial_gains(left, right, rate_hz)
        columns = dict(
            zip(
                ("first", "second", "difference", "low", "high"),
                (*bits, *gain_interval(gain, spikes)),
                strict=True,
            )
        )
        for index, unit in enumerate(left.info.unit_ids):
            row: dict[str, Any] = {"session": session, "unit": unit, "groups": len(gain)}
            row |= {"spikes": spikes[:, index].sum().item()}
            row |= {name: values[index].item() for name, values in columns.items()}
            rows.append(row | {"verdict": _verdict(row["low"], row["high"])})
    return rows


def summarize_pair(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean difference over units with its bootstrap interval (None for one), and how many are gained and lost."""
    difference = np.asarray([row["difference"] for row in rows])
    known = difference[np.isfinite(difference)]
    return {
        "units": len(known),
        "units_left_out": len(rows) - len(known),
        "first": _mean([row["first"] for row in rows]),
        "second": _mean([row["second"] for row in rows]),
        "difference": _mean(difference),
        "interval": known_interval(metrics.bootstrap_interval(difference)),
        "gained": sum(row["verdict"] == "gained" for row in rows),
        "lost": sum(row["verdict"] == "lost" for row in rows),
    }


def _predict(run: Run, tier: int) -> list[SessionPrediction]:
    if not (report_folder(run.workdir, run.step, tier) / "report.json").is_file():
        write_report(run.workdir, None, tier)
    return predict_run(run, tier)


def _common_sessions(runs: Sequence[Run]) -> list[str]:
    """Names of the sessions with units of both runs, whose arrays and units have to be the same."""
    first, second = ({session.name: session for session in run.info.sessions} for run in runs)
    common = [name for name in first if name in second]
    if not common:
        raise DataError(
            f"{runs[0].workdir} was trained on {', '.join(first)} and {runs[1].workdir} on {', '.join(second)}: no "
            "session in common, so no unit can be compared"
        )
    for name in common:
        left, right = first[name], second[name]
        if (left.fingerprint, left.unit_ids) != (right.fingerprint, right.unit_ids):
            raise DataError(
                f"session {name} of {runs[0].workdir} holds other units or arrays than that of {runs[1].workdir}. "
                "Usual cause: the session was written again between the runs; train one of them again"
            )
    recorded = [name for name in common if first[name].unit_ids]
    if not recorded:
        raise DataError(
            f"no session of both {runs[0].workdir} and {runs[1].workdir} has units ({', '.join(common)}): they are "
            "compared by what they predict of spikes. Compare runs that were trained with spikes; what "
            "self-supervision learned is in report.html of each"
        )
    return recorded


def _names(runs: Sequence[Run]) -> list[str]:
    """Names of the folders, with their parents' as long as they are the same: 'polar/seed0'."""
    parts = [run.workdir.resolve().parts for run in runs]
    if parts[0] == parts[1]:
        raise CheckpointError(f"--runs names {runs[0].workdir} twice; expected two runs, by a comma")
    length = 1
    while parts[0][-length:] == parts[1][-length:]:
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def _describe(run: Run, name: str) -> dict[str, Any]:
    described = {"name": name, "workdir": str(run.workdir), "checkpoint_step": run.step}
    return described | {"checkpoint_chosen_by": run.chosen_by}


def _place(folder: str | Path) -> tuple[str, ...]:
    """Names of the folders that lead to a run, from runs/ where it lies there."""
    path, runs = Path(folder).resolve(), WORKDIR.parent.resolve()
    return path.relative_to(runs).parts if path.is_relative_to(runs) else path.parts[1:]


def _verdict(low: float, high: float) -> str:
    return "gained" if low > 0 else "lost" if high < 0 else "open"


def _mean(values):
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else None
