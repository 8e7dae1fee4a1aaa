"""Where the runs of a study lie, and with which config each of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from polarjax.studies import budget, launch
from polarjax.studies.plan import Entry, Study


class Place(NamedTuple):
    """Where a study is and what trains it.

    Attributes:
      study: what is trained.
      workdir: folder of the study.
      train: train.py.
    """

    study: Study
    workdir: Path
    train: Path

    def folder(self, entry: Entry, seed: int) -> Path:
        """The work directory of a run."""
        return self.workdir / entry.name / f"seed{seed}"

    def folders(self, entry: Entry) -> list[Path]:
        """The work directories of the runs of an entry."""
        return [self.folder(entry, seed) for seed in self.study.seeds]

    def calibration(self, entry: Entry, seed: int) -> Path:
        """The work directory of a short run that only tells how long a step takes."""
        return self.folder(entry, seed) / "calibration"

    def entry(self, name: str | None) -> Entry:
        """The entry of that name."""
        return next(entry for entry in self.study.entries if entry.name == name)

    def overrides(self, entry: Entry, seed: int) -> dict[str, str]:
        """Values of the config of a run, before it is known how long another one took."""
        values = budget.overrides_of(entry, seed)
        if entry.init_from is None:
            return values
        return {**values, "init_from": str(self.folder(self.entry(entry.init_from), seed))}

    def chosen_overrides(self, entry: Entry, seed: int) -> dict[str, str] | None:
        """Values of the config of a run; None where it still has to be chosen how long it is."""
        overrides = self.overrides(entry, seed)
        if entry.as_long_as is None:
            return overrides
        num_steps = budget.read_choice(self.folder(entry, seed))
        return None if num_steps is None else budget.scaled_overrides(entry, overrides, num_steps)

    def finished(self, entry: Entry, seed: int) -> Path | None:
        """Folder of the report of a run of the study; None where it is not finished.

        Raises:
          ConfigError: the config of the entry is wrong.
        """
        overrides = self.chosen_overrides(entry, seed)
        if overrides is None:
            return None
        return launch.finished_report(self.folder(entry, seed), budget.settings_of(entry, overrides))
