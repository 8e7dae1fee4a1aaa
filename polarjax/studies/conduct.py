"""A whole study: trains what is missing, continues what was interrupted, and reports on all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polarjax.core import ConfigError, PolarjaxError
from polarjax.engine.interruption import leave_on_signal
from polarjax.reports import study as study_report
from polarjax.reports.study_results import mean_of_report
from polarjax.studies import budget, launch
from polarjax.studies.checks import check_folders, check_needed
from polarjax.studies.collect import read_results
from polarjax.studies.launch import RunFailed
from polarjax.studies.place import Place
from polarjax.studies.plan import Entry, in_order, select, with_overrides
from polarjax.studies.study_file import read_study

WORKDIR = Path("runs/studies")


class StudyFailed(PolarjaxError):
    """Some runs of a study failed; the others are reported (exit code 1)."""


def run_study(
    path: str | Path,
    train: str | Path,
    *,
    workdir: str | Path | None = None,
    seeds: str | None = None,
    only: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Trains every run of a study that is not finished, one after the other, and writes the report of all that are.

    Args:
      path: the study file, or its name in studies/.
      train: train.py.
      workdir: folder of the study; None is runs/studies/<name of the file>.
      seeds: --seeds, the number of seeds.
      only: --only, names of the entries to train; the report is of all entries that have finished runs.
      overrides: values of the config that hold in every entry.

    Returns:
      The fields of study.json; runs that failed are among them.

    Raises:
      ConfigError: the study, a flag or a config is wrong; nothing was trained.
      CheckpointError: the storage refuses what is written.
      Interrupted: a signal came; what was trained is saved.
    """
    asked, chosen = select(with_overrides(read_study(path), overrides or {}), seeds=seeds, only=only)
    place = Place(asked, Path(workdir or WORKDIR / asked.name), Path(train))
    for entry in chosen:
        budget.settings_of(entry, place.overrides(entry, asked.seeds[0]))
    check_needed(place, chosen)
    check_folders(place, chosen)
    with leave_on_signal("the study went on"):
        failures = _train_all(place, chosen)
        results, unusable = read_results(place)
        return study_report.write_study(_question(place), results, failures + unusable, place.workdir)


def raise_failures(summary: Mapping[str, Any]) -> None:
    """Ends a study in which runs failed, once all others are reported.

    Raises:
      StudyFailed: names them.
    """
    failures = summary["failures"]
    if failures:
        listed = "; ".join(f"{failure['entry']} with seed {failure['seed']}" for failure in failures)
        raise StudyFailed(
            f"{len(failures)} run(s) of {summary['study']} failed: {listed}. The others are reported; mend what is "
            "said of each, and the same line trains what is missing"
        )


def _train_all(place: Place, chosen: list[Entry]) -> list[dict[str, Any]]:
    """Trains the missing runs, seed by seed, each after those that it needs; returns what failed.

    Equal times begin when all before them are trained: a step is timed in the runs of all seeds.
    """
    ordered, failures = in_order(chosen), []
    late = next((at for at, entry in enumerate(ordered) if entry.as_long_as), len(ordered))
    parts, seeds = (ordered[:late], ordered[late:]), place.study.seeds
    runs = [(entry, seed) for part in parts for seed in seeds for entry in part]
    for number, (entry, seed) in enumerate(runs, 1):
        where = f"[{number}/{len(runs)}] {entry.name}, seed {seed}"
        try:
            print(f"{where}: {_train(place, entry, seed, where)}", flush=True)
        except (RunFailed, ConfigError) as error:
            print(f"{where} failed, {error}", flush=True)
            failures.append({"entry": entry.name, "seed": seed, "error": str(error)})
    return failures


def _train(place: Place, entry: Entry, seed: int, where: str) -> str:
    """Trains one run unless it is finished; returns what to say of it."""
    folder = place.folder(entry, seed)
    if entry.init_from is not None and place.finished(place.entry(entry.init_from), seed) is None:
        raise RunFailed(f"it starts from {entry.init_from} with seed {seed}, which has not been trained")
    overrides = place.chosen_overrides(entry, seed)
    if overrides is None:
        overrides = _choose_budget(place, entry, seed)
    settings = budget.settings_of(entry, overrides)
    if launch.finished_report(folder, settings):
        return "finished before"
    print(f"{where}: {settings.train.num_steps} steps, follow them in {folder / launch.OUTPUT}", flush=True)
    launch.train_run(place.train, entry.config, overrides, folder)
    report = launch.finished_report(folder, settings)
    if report is None:
        raise RunFailed(f"it ended without a report of its last step; see {folder / launch.OUTPUT}")
    bits = mean_of_report(report)
    said = "no bits per spike" if bits is None else f"{bits:.3f} bits per spike"
    return f"{said}, {launch.wall_clock_seconds(folder):.0f} s in all"


def _choose_budget(place: Place, entry: Entry, seed: int) -> dict[str, str]:
    """Measures a step of the entry and chooses how many take as long as the training of the one that it follows."""
    followed = place.entry(entry.as_long_as)
    settings = budget.settings_of(followed, place.overrides(followed, seed))
    folder = place.folder(followed, seed)
    if not launch.finished_report(folder, settings):
        raise RunFailed(
            f"it is to last as long as {followed.name} with seed {seed}, which has not been trained"
        )
    its_seconds = budget.step_seconds(place.folders(followed), settings.data.batch_size)
    own_seconds = _measure(place, entry, seed)
    if its_seconds is None or own_seconds is None:
        raise RunFailed(f"{folder} or the run that it is timed by has no {budget.RATE} in its log")
    target = (followed.name, budget.trained_steps(folder), its_seconds)
    num_steps = budget.choose_steps(place.folder(entry, seed), target, own_seconds)
    return budget.scaled_overrides(entry, place.overrides(entry, seed), num_steps)


def _measure(place: Place, entry: Entry, seed: int) -> float | None:
    """Seconds a step of an entry: from its run of equal steps where the study has one, else from a short run."""
    overrides = place.overrides(entry, seed)
    settings = budget.settings_of(entry, overrides)
    for other in place.study.entries:
        if other._replace(name=entry.name) == entry._replace(as_long_as=None):
            folder = place.folder(other, seed)
            if launch.finished_report(folder, settings):
                return budget.step_seconds(place.folders(other), settings.data.batch_size)
    folder = place.calibration(entry, seed)
    short = budget.calibration_overrides(overrides)
    if not launch.finished_report(folder, budget.settings_of(entry, short)):
        launch.train_run(place.train, entry.config, short, folder)
    return budget.step_seconds([folder], settings.data.batch_size)


def _question(place: Place) -> study_report.Question:
    study = place.study
    entries = {
        entry.name: entry.config
        + (f", starts from {entry.init_from}" if entry.init_from else "")
        + (f", as long as {entry.as_long_as}" if entry.as_long_as else "")
        for entry in study.entries
    }
    compared, shown = (study.reference, study.references), (study.constants, study.truth, study.metrics)
    return study_report.Question(study.name, study.question, *compared, study.seeds, entries, *shown)
