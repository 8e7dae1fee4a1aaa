"""Reads the finished runs of a study, and leaves out those that cannot be told beside the others."""

from __future__ import annotations

from typing import Any

from polarjax.core import CheckpointError, ConfigError
from polarjax.reports.study_results import Result, read_result
from polarjax.studies import budget, launch
from polarjax.studies.place import Place
from polarjax.studies.plan import Entry


def read_results(place: Place) -> tuple[list[Result], list[dict[str, Any]]]:
    """Reads every finished run of the study, whether it was trained now or before.

    Differences are paired by unit, so a session holds the same arrays in all runs that have bits per spike: those of
    the first run that has it.

    Returns:
      The runs, and what is wrong {entry, seed, error} with those that have a damaged report or other data.
    """
    results, unusable = [], []
    for entry, seed in ((entry, seed) for entry in place.study.entries for seed in place.study.seeds):
        try:
            result = _read(place, entry, seed)
        except CheckpointError as error:
            unusable.append({"entry": entry.name, "seed": seed, "error": str(error)})
            continue
        if result is not None:
            other = _other_data(result, results)
            if other:
                unusable.append({"entry": entry.name, "seed": seed, "error": other})
            else:
                results.append(result)
    return results, unusable


def _read(place: Place, entry: Entry, seed: int) -> Result | None:
    try:
        report = place.finished(entry, seed)
    except ConfigError:  # of an entry that --only leaves out; the others were answered at the start
        return None
    if report is None:
        return None
    folder = place.folder(entry, seed)
    batch_size = budget.settings_of(entry, place.overrides(entry, seed)).data.batch_size
    seconds = budget.training_seconds(folder, batch_size)
    times = budget.trained_steps(folder), seconds, launch.wall_clock_seconds(folder)
    return read_result(entry.name, seed, report, times, budget.last_values(folder, place.study.metrics))


def _other_data(result: Result, others: list[Result]) -> str | None:
    """Says which session of a run is not that of a run before; None where all are, and for a mere preparation."""
    for other in others:
        for name, fingerprint in result.sessions.items():
            if other.sessions.get(name, fingerprint) != fingerprint:
                return (
                    f"its session {name!r} (fingerprint {fingerprint[:12]}) holds other arrays than that of "
                    f"{other.row['entry']} with seed {other.row['seed']} ({other.sessions[name][:12]}), so their units "
                    "are not compared; bring the session back and train the run again in an empty folder, or train "
                    "the study in another --workdir"
                )
    return None
