"""What is answered before anything is trained: what --only leaves out, and folders with runs of another config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polarjax.core import ConfigError
from polarjax.engine import archive
from polarjax.studies import budget, launch
from polarjax.studies.place import Place
from polarjax.studies.plan import Entry

FLOOR = "train.floor_steps"  # train.py adds a floor to a run without one


def check_needed(place: Place, chosen: Sequence[Entry]) -> None:
    """Makes sure that all that the chosen entries need is trained before them.

    Raises:
      ConfigError: --only leaves out an entry that one of them starts from, or lasts as long as, and that is not
        finished; it says with which --only they are trained.
    """
    names = {entry.name for entry in chosen}
    answers = []
    while left := _left_out(place, names):
        answers += left
        names |= {needed for _, needed, _, _ in left}
    if answers:
        entry, needed, verb, seeds = answers[0]
        wanted = ",".join(other.name for other in place.study.entries if other.name in names)
        raise ConfigError(
            f"entry {entry!r} {verb} {needed!r}, which --only leaves out and which is not trained with seed {seeds}; "
            f"train it too, --only {wanted}"
        )


def check_folders(place: Place, chosen: Sequence[Entry]) -> None:
    """Makes sure that no folder of the chosen entries holds a run that was trained with another config.

    Raises:
      ConfigError: names the values that differ, with the entries whose runs they are of.
    """
    found: dict[str, dict[str, None]] = {}
    for entry, seed in ((entry, seed) for entry in chosen for seed in place.study.seeds):
        folder, overrides = _first_trained(place, entry, seed)
        if not archive.list_steps(folder):
            continue
        differences = launch.differences(folder, budget.settings_of(entry, overrides))
        for name, (there, here) in differences.items():
            if name != FLOOR or there:
                text = f"config.{name} is {there!r} there and {here!r} here"
                found.setdefault(text, {})[entry.name] = None
    if found:
        listed = "; ".join(f"{text} ({', '.join(names)})" for text, names in found.items())
        raise ConfigError(
            f"{place.workdir} holds runs of another config: {listed}. Train this study in another --workdir, or set "
            "the values back to continue that one; nothing was trained"
        )


def _left_out(place: Place, names: set[str]) -> list[tuple[str, str, str, str]]:
    """Returns (entry, what it needs, how, the seeds that miss it) of needs of these entries that are not among them."""
    found = []
    for entry in (place.entry(name) for name in sorted(names)):
        for verb, needed in (("starts from", entry.init_from), ("lasts as long as", entry.as_long_as)):
            if needed is None or needed in names:
                continue
            seeds = [str(seed) for seed in place.study.seeds if _waits(place, entry, needed, seed)]
            if seeds:
                found.append((entry.name, needed, verb, ", ".join(seeds)))
    return found


def _waits(place: Place, entry: Entry, needed: str, seed: int) -> bool:
    """Says whether a run cannot be trained before one of another entry, which is not finished."""
    chosen = needed != entry.init_from and place.chosen_overrides(entry, seed) is not None
    return not chosen and place.finished(place.entry(needed), seed) is None


def _first_trained(place: Place, entry: Entry, seed: int) -> tuple[Path, dict[str, str]]:
    """Returns folder and values of a run, or of the short one that it is timed by while its steps are not chosen."""
    overrides = place.chosen_overrides(entry, seed)
    if overrides is not None:
        return place.folder(entry, seed), overrides
    return place.calibration(entry, seed), budget.calibration_overrides(place.overrides(entry, seed))
