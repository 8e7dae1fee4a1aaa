"""Config files and overrides; everything a user can mistype is answered in one line."""

from __future__ import annotations

import ast
import dataclasses
import math
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import ml_collections

from polarjax.core import ConfigError, PolarjaxError, closest
from polarjax.engine.optim import OptimConfig
from polarjax.engine.validation import Range, read_section

SECTIONS = ("system", "seed", "init_from", "data", "model", "loss", "optim", "train")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The section config.train.

    Attributes:
      num_steps: length of the run; steps are counted in 32 bits.
      log_every, eval_every, save_every: intervals in steps; all three happen at the last step too.
      eval_batches: largest number of batches of an evaluation, 0 for all.
      keep_latest, keep_best: number of newest checkpoints, and of those with the best metric, that stay.
      max_skipped: number of non-finite steps in a row that stops the run.
      best_metric: metric of the evaluation, higher is better.
      patience: number of evaluations without a better `best_metric` after which the run ends, 0 for never.
      floor_steps: length of the run of the system's floor, 0 for none; the loop does not read it.
      watchdog_minutes: a step that takes longer ends the process with the stacks of its threads on stderr; ten times
        as long is allowed where a program is compiled; 0 for never.
    """

    num_steps: Annotated[int, Range(1, 10**9)]
    log_every: Annotated[int, Range(1)]
    eval_every: Annotated[int, Range(1)]
    save_every: Annotated[int, Range(1)]
    eval_batches: Annotated[int, Range(0)]
    keep_latest: Annotated[int, Range(1)]
    keep_best: Annotated[int, Range(0)]
    max_skipped: Annotated[int, Range(1)]
    best_metric: str
    patience: Annotated[int, Range(0)]
    floor_steps: Annotated[int, Range(0)]
    watchdog_minutes: Annotated[float, Range(0.0, 1e4)]


def load(flag: str | None, overrides: Mapping[str, str]) -> ml_collections.ConfigDict:
    """Runs `get_config(argument)` of a config file, applies the overrides and checks the result.

    Args:
      flag: 'path.py' or 'path.py:argument'.
      overrides: {'train.num_steps': '500'}; a value must have the type of the one it replaces.

    Raises:
      ConfigError: one line that names the file, what is wrong and what is allowed.
    """
    if not flag:
        raise ConfigError("--config is missing; for example --config configs/polar_relaxed.py:quick")
    path, argument = split_argument(flag)
    config = _run_file(path, argument)
    try:
        for name, text in overrides.items():
            _override(config, name, text)
        validate(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config.lock()


def split_argument(flag: str) -> tuple[Path, str | None]:
    """Splits 'path.py:argument' into the path and the argument, None where there is none."""
    name, colon, argument = flag.partition(".py:")
    return (Path(name + ".py"), argument) if colon else (Path(flag), None)


def default_workdir(flag: str) -> Path:
    """Returns runs/<config>[-argument], the folder of a run that names none."""
    path, argument = split_argument(flag)
    return Path("runs") / (path.stem + (f"-{argument}" if argument else ""))


def validate(config: ml_collections.ConfigDict) -> tuple[TrainConfig, OptimConfig]:
    """Checks the sections' names, config.seed, .init_from, .train and .optim; the others check their own.

    Raises:
      ConfigError: a missing or unknown section, a wrong name, type or range.
    """
    for name in config:
        if name not in SECTIONS:
            raise ConfigError(f"config.{name} is not a section{closest(name, SECTIONS)}")
    for name in SECTIONS:
        if name not in config:
            raise ConfigError(f"config.{name} is missing; the sections are {', '.join(SECTIONS)}")
    seed = config.seed
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"config.seed must be a whole number in [0, 2**32), got {seed!r}")
    if not isinstance(config.init_from, str):
        raise ConfigError(
            "config.init_from must be the work directory of a trained run, or '' to start afresh, "
            f"got {config.init_from!r}"
        )
    train = read_section(TrainConfig, config.train, "config.train")
    return train, OptimConfig.read(config.optim, train.num_steps)


def _run_file(path: Path, argument: str | None) -> ml_collections.ConfigDict:
    if not path.is_file():
        where = path.parent if path.parent.is_dir() else Path(".")
        found = [str(where / entry.name) for entry in where.glob("*.py")]
        raise ConfigError(f"{path}: no such config file{closest(str(path), found) if found else ''}")
    try:
        namespace = runpy.run_path(str(path))
        if "get_config" not in namespace:
            raise ConfigError(f"{path}: the config file must define get_config(argument=None)")
        config = namespace["get_config"](*([] if argument is None else [argument]))
    except PolarjaxError as error:
        raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except SyntaxError as error:
        raise ConfigError(f"{error.filename or path}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # a config file is a program: whatever it raises is an answer to its author
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name] or ["?"]
        raise ConfigError(f"{path}:{lines[-1]}: {type(error).__name__}: {error}") from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{path}: get_config must return an ml_collections.ConfigDict, got {type(config).__name__}"
        )
    return config.copy_and_resolve_references().unlock()


def _override(config: ml_collections.ConfigDict, name: str, text: str) -> None:
    *branches, leaf = name.split(".")
    node, path = config, "config"
    for key in [*branches, leaf]:
        if not isinstance(node, ml_collections.ConfigDict):
            raise ConfigError(f"--config.{name}: {path} is {node!r}, a value and no section")
        if key not in node:
            raise ConfigError(f"--config.{name}: {path} has no {key!r}{closest(key, node.keys())}")
        parent, node, path = node, node[key], f"{path}.{key}"
    with parent.ignore_type():
        parent[leaf] = _convert(text, node, f"--config.{name}")


def _convert(text: str, current: Any, flag: str) -> Any:
    """Reads text as a value of the type of `current`; None may be replaced by any literal, a section by None."""
    problem = f"{flag} must be like {current!r}, got {text!r}"
    if isinstance(current, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(current, ml_collections.ConfigDict):
        if value is None:
            return None
        raise ConfigError(
            f"{flag} is a section with {', '.join(current)}; set one of them, as in {flag}.{next(iter(current))}=.."
        )
    if current is None or value is None:
        if current is None:
            return ml_collections.ConfigDict(value) if isinstance(value, dict) else value
        raise ConfigError(problem)
    if isinstance(current, bool) or isinstance(value, bool):
        right = isinstance(current, bool) and isinstance(value, bool)
    elif isinstance(current, float):
        right = isinstance(value, (int, float)) and math.isfinite(value)
        value = float(value) if right else value
    else:
        right = isinstance(value, (tuple, list) if isinstance(current, (tuple, list)) else type(current))
        value = type(current)(value) if right and isinstance(current, (tuple, list)) else value
    if not right:
        raise ConfigError(problem)
    return value
