"""A study file: where it is, what it may say, and how a wrong one is answered."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polarjax.core import ConfigError, PolarjaxError, closest
from polarjax.studies.plan import OF_THE_STUDY, Entry, Study, in_order

FOLDER = Path("studies")
REQUIRED = ("QUESTION", "SEEDS", "REFERENCE", "RUNS")
OPTIONAL = {"REFERENCES": {}, "CONSTANTS": (), "TRUTH": {}, "METRICS": ()}
OPTIONS = ("as_long_as", "init_from")
NAME = re.compile(r"\w[\w.+-]*")


def study_names(folder: Path = FOLDER) -> list[str]:
    """Names of the studies in a folder; without one in studies/, where the program was started."""
    return sorted(path.stem for path in folder.glob("*.py"))


def read_study(name: str | Path) -> Study:
    """Runs a study file and checks all it says; the configs are opened by `budget.settings_of`.

    Args:
      name: path of the file, or its name in studies/; both with or without .py.

    Raises:
      ConfigError: one line that names the file, what is wrong and what is allowed.
    """
    path = _find(Path(name))
    try:
        return _study(path.stem, _values(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _find(name: Path) -> Path:
    folder = name.parent if name.parent.parts else FOLDER
    for path in (name, folder / name.name, folder / f"{name.name}.py"):
        if path.is_file():
            return path
    names = study_names(folder)
    near = closest(name.stem, names) if names else ""
    raise ConfigError(f"{name}: no such study file in {folder}{near or '; name the path of one'}")


def _values(path: Path) -> dict[str, Any]:
    try:
        namespace = runpy.run_path(str(path))
    except PolarjaxError:
        raise
    except Exception as error:  # a study file is a program: whatever it raises is an answer to its author
        raise ConfigError(f"{type(error).__name__}: {error}") from None
    values = {name: value for name, value in namespace.items() if name in (*REQUIRED, *OPTIONAL)}
    for name in REQUIRED:
        if name not in values:
            raise ConfigError(f"{name} is missing; a study has {', '.join(REQUIRED)}, see docs/studies.md")
    return {**OPTIONAL, **values}


def _study(name: str, values: Mapping[str, Any]) -> Study:
    entries = tuple(_entry(line) for line in values["RUNS"])
    names = [entry.name for entry in entries]
    for twice in (name for name in names if names.count(name) > 1):
        raise ConfigError(f"RUNS has two entries {twice!r}; a name is a folder, choose another")
    seeds = tuple(values["SEEDS"])
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len({*seeds}) < len(seeds):
        raise ConfigError(f"SEEDS must be different whole numbers >= 0, got {seeds!r}")
    if values["REFERENCE"] not in names:
        raise ConfigError(
            f"REFERENCE is {values['REFERENCE']!r}, no entry of RUNS{_near(values['REFERENCE'], names)}"
        )
    references = _references(values["REFERENCES"], values["REFERENCE"], names)
    for entry in entries:
        if entry.init_from is not None and entry.init_from not in names:
            raise ConfigError(
                f"entry {entry.name!r} starts from {entry.init_from!r}, no entry of RUNS{_near(entry.init_from, names)}"
            )
    own_budget = [entry.name for entry in entries if entry.as_long_as is None]
    for entry in entries:
        if entry.as_long_as is not None and entry.as_long_as not in own_budget:
            raise ConfigError(
                f"entry {entry.name!r} is trained as long as {entry.as_long_as!r}, no entry of RUNS with a number of "
                f"steps of its own{_near(entry.as_long_as, own_budget)}"
            )
    in_order(entries)
    truth = {key: float(value) for key, value in values["TRUTH"].items()}
    constants = tuple(values["CONSTANTS"])
    for key in truth:
        if key not in constants:
            raise ConfigError(
                f"TRUTH has {key!r}, which is not in CONSTANTS{_near(key, constants or ('none',))}"
            )
    metrics = tuple(map(str, values["METRICS"]))
    question, reference = str(values["QUESTION"]), values["REFERENCE"]
    return Study(name, question, seeds, reference, references, entries, constants, truth, metrics)


def _references(given: Any, reference: str, names: Sequence[str]) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"REFERENCES is {{entry: the entry that it is compared with}}, got {given!r}")
    for entry, other in given.items():
        for name in (entry, other):
            if name not in names:
                raise ConfigError(f"REFERENCES has {name!r}, no entry of RUNS{_near(name, names)}")
        if entry in (other, reference):
            raise ConfigError(
                f"REFERENCES compares {entry!r} with {other!r}; leave it out: REFERENCE is compared with none, and no "
                "entry with itself"
            )
    return dict(given)


def _entry(line: Any) -> Entry:
    if not isinstance(line, Sequence) or len(line) not in (3, 4):
        raise ConfigError(
            f"an entry of RUNS is (name, config, overrides) or with options as the fourth, got {line!r}"
        )
    name, config, overrides, options = (*line, {}) if len(line) == 3 else line
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"the name of an entry is a folder, of letters, digits and _ . + -, got {name!r}")
    for option in options:
        if option not in OPTIONS:
            raise ConfigError(
                f"entry {name!r} has an unknown option {option!r}{closest(str(option), OPTIONS)}"
            )
    for key in overrides:
        if key in OF_THE_STUDY:
            raise ConfigError(f"entry {name!r} sets {key!r}, which the study sets to each of SEEDS")
    if "init_from" in overrides and "init_from" in options:
        raise ConfigError(
            f"entry {name!r} has init_from twice, as a value, a work directory, and as an option, an entry of RUNS; "
            "leave one of them out"
        )
    texts = {key: value if isinstance(value, str) else repr(value) for key, value in overrides.items()}
    return Entry(name, config, texts, options.get("as_long_as"), options.get("init_from"))


def _near(name: Any, names: Sequence[str]) -> str:
    return closest(str(name), names)
