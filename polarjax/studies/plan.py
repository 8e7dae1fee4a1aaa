"""A study: which configs are trained with which values, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from polarjax.core import ConfigError, closest

OF_THE_STUDY = ("seed", "data.seed")


class Entry(NamedTuple):
    """One line of a study; it is trained once a seed.

    Attributes:
      name: unique in the study, and a folder.
      config: what train.py --config is given.
      overrides: {'optim.clip_norm': '1.0'}, the values of --config. flags as text.
      as_long_as: name of the entry whose training time it is given, in place of its own number of steps.
      init_from: name of the entry whose run of the same seed each of its runs starts from.
    """

    name: str
    config: str
    overrides: dict[str, str]
    as_long_as: str | None
    init_from: str | None = None

    @property
    def needs(self) -> set[str]:
        """Names of the entries that are trained before it."""
        return {name for name in (self.as_long_as, self.init_from) if name is not None}


class Study(NamedTuple):
    """What a study file says.

    Attributes:
      name: of the file.
      question: what the study answers, one or two sentences.
      seeds: of the runs of every entry.
      reference: name of the entry that the others are compared with.
      references: {entry: reference} of those that are compared with another one.
      entries: in the order of the table.
      constants: ends of the names of learned constants that the table shows, as in 'tau_fix_ms'.
      truth: {constant: value} where the generator of the data is known.
      metrics: of the last evaluation during training that the table shows, as in 'jepa/deviation'.
    """

    name: str
    question: str
    seeds: tuple[int, ...]
    reference: str
    references: dict[str, str]
    entries: tuple[Entry, ...]
    constants: tuple[str, ...]
    truth: dict[str, float]
    metrics: tuple[str, ...] = ()


def is_study(flags: Mapping[str, str], overrides: Mapping[str, str]) -> bool:
    """Whether a command line asks for a study (--study) or for two runs (--runs).

    Raises:
      ConfigError: for neither or both, or for two runs with what belongs to a study.
    """
    if ("study" in flags) == ("runs" in flags):
        raise ConfigError("expected one of --study studies/v1_models.py and --runs runs/a,runs/b")
    if "config" in flags:
        raise ConfigError(
            "--config takes the name of a value, as in --config.data.sessions=DIR; a study names its configs"
        )
    of_a_study = [name for name in ("seeds", "only") if name in flags] + [
        f"config.{name}" for name in overrides
    ]
    if "runs" in flags and of_a_study:
        raise ConfigError(f"--{of_a_study[0]} belongs to --study; runs are compared as they are")
    return "study" in flags


def read_runs(text: str) -> tuple[Path, Path]:
    """Reads the value of --runs: two work directories, by a comma.

    Raises:
      ConfigError: not two.
    """
    folders = [Path(part) for part in text.split(",") if part]
    if len(folders) != 2:
        raise ConfigError(f"--runs is {text!r}; expected two work directories, as in --runs runs/a,runs/b")
    return folders[0], folders[1]


def select(study: Study, *, seeds: str | None = None, only: str | None = None) -> tuple[Study, list[Entry]]:
    """Applies --seeds and --only.

    Args:
      seeds: number of seeds, counted from 0; None leaves those of the file.
      only: names of the entries to train, by commas; None for all.

    Returns:
      The study with its seeds, and the entries to train.

    Raises:
      ConfigError: no number, or a name that the study does not have.
    """
    if seeds is not None:
        if not seeds.isdecimal() or int(seeds) == 0:
            raise ConfigError(f"--seeds is {seeds!r}; expected the number of seeds, as in --seeds 3")
        study = study._replace(seeds=tuple(range(int(seeds))))
    names = [entry.name for entry in study.entries]
    wanted = names if only is None else only.split(",")
    for name in wanted:
        if name not in names:
            raise ConfigError(f"--only has {name!r}, no entry of {study.name}{closest(name, names)}")
    return study, [entry for entry in study.entries if entry.name in wanted]


def with_overrides(study: Study, overrides: Mapping[str, str]) -> Study:
    """Sets values of the config in every entry, over those that the file sets.

    Raises:
      ConfigError: a seed or a source, which the study sets.
    """
    warm = [entry.name for entry in study.entries if entry.init_from is not None]
    if "init_from" in overrides and warm:
        raise ConfigError(
            f"--config.init_from is set by the study for {', '.join(warm)}; leave it out, or change the study"
        )
    for name in overrides:
        if name in OF_THE_STUDY:
            raise ConfigError(f"--config.{name} is set for every run by the study; --seeds chooses how many")
    return study._replace(
        entries=tuple(entry._replace(overrides={**entry.overrides, **overrides}) for entry in study.entries)
    )


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Entries in the order of training: that of the study, equal times last, and each after those that it needs.

    Raises:
      ConfigError: some wait for each other.
    """
    left = sorted(entries, key=lambda entry: entry.as_long_as is not None)
    ordered: list[Entry] = []
    while left:
        names = {entry.name for entry in left}
        ready = [entry for entry in left if not entry.needs & names]
        if not ready:
            waiting = "; ".join(
                f"{entry.name!r} for {', '.join(sorted(entry.needs & names))}" for entry in left
            )
            raise ConfigError(
                "entries of RUNS wait for each other, and none could be trained first: an entry comes after the one "
                f"that it starts from or lasts as long as. Waiting are {waiting}"
            )
        ordered.append(ready[0])
        left.remove(ready[0])
    return ordered
