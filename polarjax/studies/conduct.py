"""A whole study: trains what is missing, continues what was interrupted, and reports on all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from polarjax.core import ConfigError, PolarjaxError
from polarjax.engine.interruption import leave_on_signal
from polarjax.reports import study as study_report
from polarjax.reports.study_results import Result, read_result
from polarjax.studies import budget, launch
from polarjax.studies.launch import RunFailed
from polarjax.studies.plan import Entry, Study, read_study, select, with_overrides

WORKDIR = Path("runs/studies")


class StudyFailed(PolarjaxError):
    """Some runs of a study failed; the others are reported (exit code 1)."""


class _Place(NamedTuple):
    """Where a study is and what trains it."""

    study: Study
    workdir: Path
    train: Path

    def folder(self, entry: Entry, seed: int) -> Path:
        return self.workdir / entry.name / f"seed{seed}"


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
      path: the study file.
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
    for entry in chosen:
        budget.settings_of(entry, budget.overrides_of(entry, asked.seeds[0]))
    place = _Place(asked, Path(workdir or WORKDIR / asked.name), Path(train))
    with leave_on_signal("the study went on"):
        failures = _train_all(place, chosen)
        return study_report.write_study(_question(place), _results(place), failures, place.workdir)


def raise_failures(summary: Mapping[str, Any]) -> None:
    """Ends a study in which runs failed, once all others are reported.

    Raises:
      StudyFailed: names them.
    """
    failures = summary["failures"]
    if failures:
        listed = "; ".join(f"{failure['entry']} with seed {failure['seed']}" for failure in failures)
        raise StudyFailed(
            f"{len(failures)} run(s) of {summary['study']} failed: {listed}. The others are reported; the same line "
            "trains again what failed"
        )


def _train_all(place: _Place, chosen: list[Entry]) -> list[dict[str, Any]]:
    """Trains the missing runs, seed by seed, those that last as long as another after it; returns what failed."""
    ordered = sorted(chosen, key=lambda entry: entry.as_long_as is not None)
    runs, failures = [(entry, seed) for seed in place.study.seeds for entry in ordered], []
    for number, (entry, seed) in enumerate(runs, 1):
        where = f"[{number}/{len(runs)}] {entry.name}, seed {seed}"
        try:
            print(f"{where}: {_train(place, entry, seed, where)}", flush=True)
        except (RunFailed, ConfigError) as error:
            print(f"{where} failed, {error}", flush=True)
            failures.append({"entry": entry.name, "seed": seed, "error": str(error)})
    return failures


def _train(place: _Place, entry: Entry, seed: int, where: str) -> str:
    """Trains one run unless it is finished; returns what to say of it."""
    folder = place.folder(entry, seed)
    overrides = _own_overrides(place, entry, seed)
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
    bits = json.loads((report / "report.json").read_text(encoding="utf-8"))["bits_per_spike"]["mean"]
    said = "no unit spiked" if bits is None else f"{bits:.3f} bits per spike"
    return f"{said}, {launch.wall_clock_seconds(folder):.0f} s in all"


def _own_overrides(place: _Place, entry: Entry, seed: int) -> dict[str, str] | None:
    """Values of the config of a run; None where it still has to be chosen how long it is."""
    overrides = budget.overrides_of(entry, seed)
    if entry.as_long_as is None:
        return overrides
    num_steps = budget.read_choice(place.folder(entry, seed))
    return None if num_steps is None else budget.scaled_overrides(entry, overrides, num_steps)


def _choose_budget(place: _Place, entry: Entry, seed: int) -> dict[str, str]:
    """Measures a step of the entry and chooses how many take as long as the training of the one that it follows."""
    followed = next(other for other in place.study.entries if other.name == entry.as_long_as)
    settings = budget.settings_of(followed, budget.overrides_of(followed, seed))
    folder = place.folder(followed, seed)
    if not launch.finished_report(folder, settings):
        raise RunFailed(
            f"it is to last as long as {followed.name} with seed {seed}, which has not been trained"
        )
    its_seconds = budget.step_seconds(folder, settings.data.batch_size)
    own_seconds = _measure(place, entry, seed)
    if its_seconds is None or own_seconds is None:
        raise RunFailed(f"{folder} or the run that it is timed by has no {budget.RATE} in its log")
    target = (followed.name, budget.trained_steps(folder), its_seconds)
    num_steps = budget.choose_steps(place.folder(entry, seed), target, own_seconds)
    return budget.scaled_overrides(entry, budget.overrides_of(entry, seed), num_steps)


def _measure(place: _Place, entry: Entry, seed: int) -> float | None:
    """Seconds a step of an entry: from its run of equal steps where the study has one, else from a short run."""
    overrides = budget.overrides_of(entry, seed)
    settings = budget.settings_of(entry, overrides)
    for other in place.study.entries:
        if (other.config, other.overrides, other.as_long_as) == (entry.config, entry.overrides, None):
            folder = place.folder(other, seed)
            if launch.finished_report(folder, settings):
                return budget.step_seconds(folder, settings.data.batch_size)
    folder = place.folder(entry, seed) / "calibration"
    short = budget.calibration_overrides(overrides)
    if not launch.finished_report(folder, budget.settings_of(entry, short)):
        launch.train_run(place.train, entry.config, short, folder)
    return budget.step_seconds(folder, settings.data.batch_size)


def _question(place: _Place) -> study_report.Question:
    study = place.study
    entries = {
        entry.name: entry.config + (f", as long as {entry.as_long_as}" if entry.as_long_as else "")
        for entry in study.entries
    }
    return study_report.Question(
        study.name, study.question, study.reference, study.seeds, entries, study.constants, study.truth
    )


def _results(place: _Place) -> list[Result]:
    """Reads every finished run of the study, whether it was trained now or before."""
    found = []
    for entry in place.study.entries:
        for seed in place.study.seeds:
            folder = place.folder(entry, seed)
            try:
                overrides = _own_overrides(place, entry, seed)
                settings = None if overrides is None else budget.settings_of(entry, overrides)
            except ConfigError:  # of an entry that --only leaves out; the others were answered at the start
                continue
            report = None if settings is None else launch.finished_report(folder, settings)
            if settings is not None and report is not None:
                seconds = budget.training_seconds(folder, settings.data.batch_size)
                times = budget.trained_steps(folder), seconds, launch.wall_clock_seconds(folder)
                found.append(read_result(entry.name, seed, report, times))
    return found
