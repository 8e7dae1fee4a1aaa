"""How a run starts from another: the core of a trained run, and the readouts of the sessions that both have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from polarjax.core import READOUT, CheckpointError, ConfigError
from polarjax.engine import archive, checkpoints
from polarjax.engine.agreement import fail_together, start_together
from polarjax.engine.state import Given, TrainState, flatten
from polarjax.engine.warm_start_words import differences, tell

PARAMS, MOMENTS = "params/", "nu/"


class Start(NamedTuple):
    """What a new run begins with in place of what is drawn.

    Attributes:
      given: for `initial_state`; {} where all is drawn.
      record: what every checkpoint keeps of it as meta['init_from'], None without a source: path, step, digest (of the
        copied values), parameters and readouts (copied paths), sessions (whose readouts), new and left_behind (paths);
        the loop adds constants, what the system says of them before the first step.
      told: lines to print.
    """

    given: Given
    record: dict[str, Any] | None
    told: list[str]


class _Run(NamedTuple):
    """A source or the new run: its leaves (values, or shapes and dtypes), which are readouts, and its meta."""

    leaves: dict[str, Any]
    readouts: list[str]
    meta: Mapping[str, Any]

    @property
    def core(self) -> list[str]:
        return [path for path in self.leaves if path.startswith(PARAMS) and path not in self.readouts]

    @property
    def collections(self) -> dict[str, tuple]:
        return {path: _kind(leaf) for path, leaf in self.leaves.items() if not path.startswith(PARAMS)}


def read_start(
    run: Mapping[str, Any], param_group: Callable[[tuple[str, ...]], str], abstract: Callable[[], TrainState]
) -> Start:
    """Reads what config.init_from names, the same in all processes, and compares it with the model of the new run.

    Args:
      run: from `describe_run`.
      param_group: of the system.
      abstract: returns the state of the new run in shapes and dtypes; not called without a source.

    Raises:
      ConfigError: no trained run, or its parameters are not those of this model.
      CheckpointError: its checkpoint is damaged, or another one in another process.
    """
    folder = run["config"]["init_from"]
    if not folder:
        return Start({}, None, [])
    with fail_together():
        start = _read_start(folder, run, param_group, abstract)
    start_together(folder, start.record)
    return start


def _read_start(
    folder: str, run: Mapping[str, Any], param_group: Callable[..., str], abstract: Callable[[], TrainState]
) -> Start:
    state, meta = _open(folder)
    source = _describe(state, meta, param_group)
    model = _describe(abstract(), run, param_group)
    where = f"{folder}, step {meta['step']}"
    _check_core(source, model, where)
    given: Given = {
        path: (np.bool_(True), source.leaves[path]) for path in model.core if path in source.leaves
    }
    sessions, why = _shared_sessions(source, model, state.opt_state)
    given |= _copy_readouts(source, model, sessions)
    if not given:
        raise ConfigError(
            f"config.init_from {where} has nothing for this run, whose model is all readout: {why}"
        )
    own, others = ((*side.core, *side.readouts) for side in (model, source))
    record = {
        "path": folder,
        "step": meta["step"],
        "digest": archive.digest_of_json({path: archive.digest(value) for path, value in _copied(given)}),
        "parameters": [path for path in model.core if path in given],
        "readouts": [path for path in model.readouts if path in given],
        "sessions": list(sessions),
        "new": [path for path in own if path not in given],
        "left_behind": [path for path in others if path not in own],
    }
    return Start(given, record, [*tell(record, meta, run, why), *differences(meta, run)])


def _open(folder: str) -> tuple[TrainState, dict[str, Any]]:
    """Reads the best checkpoint of a run, the latest where none has a finite metric."""
    if not archive.list_steps(folder):
        raise ConfigError(
            f"config.init_from is {folder!r}, which holds no checkpoint; expected the work directory of a trained "
            "run, what train.py --workdir was given, or '' to start afresh"
        )
    try:
        for step in archive.list_steps(folder):
            archive.read_meta(folder, step)  # a damaged one would hide that it is the best
        return checkpoints.restore(folder, "best")
    except CheckpointError as error:
        raise CheckpointError(f"config.init_from is {folder!r}: {error}") from None


def _describe(state: TrainState, meta: Mapping[str, Any], param_group: Callable[..., str]) -> _Run:
    leaves = flatten({"params": state.params, **state.model_state})
    readouts = [
        path
        for path in leaves
        if path.startswith(PARAMS) and param_group(tuple(path.split("/")[1:])) == READOUT
    ]
    return _Run(leaves, readouts, meta)


def _check_core(source: _Run, model: _Run, where: str) -> None:
    """Raises a ConfigError where shared parameters have other shapes, or where a core finds none of its own."""
    shared = [path for path in model.core if path in source.core]
    other = [path for path in shared if _kind(source.leaves[path]) != _kind(model.leaves[path])]
    listed = [
        f"{_name(path)} is {_word(source.leaves[path])} there and {_word(model.leaves[path])} here"
        for path in other
    ]
    if model.core and not shared:
        listed = ["it shares no parameter with this model outside the readouts"]
    if listed:
        usual = differences(source.meta, model.meta) or [
            "usual cause: frames of another size or number of channels"
        ]
        raise ConfigError(
            f"config.init_from {where} does not fit this model: {'; '.join(listed)}. {'; '.join(usual)}. Set these "
            "values to those of the run, or start from another one"
        )


def _shared_sessions(source: _Run, model: _Run, moments: Any) -> tuple[dict[str, tuple[int, int, int]], str]:
    """Returns {session: (its row there, here, its number of units)} of the readouts to copy; or {} and why not.

    A readout that never had a gradient, in a run without spikes, is not worth more than a fresh one, whose features are
    scaled for the core as it is now: the second moments of the optimizer tell, or that the source had copied it itself.
    """
    if not model.readouts:
        return {}, ""
    there, here = (
        {
            session["name"]: (row, session["unit_ids"])
            for row, session in enumerate(run.meta["info"]["sessions"])
        }
        for run in (source, model)
    )
    same = {
        name: (there[name][0], row, len(units))
        for name, (row, units) in here.items()
        if units and name in there and there[name][1] == units
    }
    shared = [path for path in model.readouts if path in source.readouts]
    if not same:
        return {}, "no session has the name and the units of one of that run"
    if not shared or not all(_rows_agree(source, model, path) for path in shared):
        return {}, "they have other features than in that run"
    if source.collections != model.collections:
        return {}, "their features are scaled otherwise than in that run"
    seen = [
        leaf
        for path, leaf in flatten(moments).items()
        if any(path.endswith(MOMENTS + _name(name)) for name in shared)
    ]
    before = (source.meta.get("init_from") or {}).get("sessions", ())
    learned = {
        name: (row, own, units)
        for name, (row, own, units) in same.items()
        if name in before or any(np.any(leaf[row, :units]) for leaf in seen)
    }
    return learned, "" if learned else "that run did not train its own"


def _rows_agree(source: _Run, model: _Run, path: str) -> bool:
    """Whether a readout is [S, N, ..] in both runs, with the same shape after the units."""
    leading = []
    for run in (source, model):
        sessions = run.meta["info"]["sessions"]
        units = max(len(session["unit_ids"]) for session in sessions)
        leading.append(tuple(run.leaves[path].shape[:2]) == (len(sessions), units))
    (shape, dtype), (own_shape, own_dtype) = (_kind(run.leaves[path]) for run in (source, model))
    return all(leading) and (shape[2:], dtype) == (own_shape[2:], own_dtype)


def _copy_readouts(source: _Run, model: _Run, sessions: Mapping[str, tuple[int, int, int]]) -> Given:
    """Puts the rows of shared sessions where this run has them; then the scale of the features is theirs too."""
    if not sessions:
        return {}
    given: Given = {path: (np.bool_(True), source.leaves[path]) for path in source.collections}
    for path in (path for path in model.readouts if path in source.readouts):
        leaf = model.leaves[path]
        places, values = np.zeros(leaf.shape, bool), np.zeros(leaf.shape, leaf.dtype)
        for there, here, units in sessions.values():
            places[here, :units] = True
            values[here, :units] = source.leaves[path][there, :units]
        given[path] = (places, values)
    return given


def _copied(given: Given) -> list[tuple[str, np.ndarray]]:
    """Returns the values of the parameters that are copied, without what is drawn around them."""
    return [
        (path, values if places.ndim == 0 else values[places])
        for path, (places, values) in given.items()
        if path.startswith(PARAMS)
    ]


def _name(path: str) -> str:
    return path.removeprefix(PARAMS)


def _kind(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _word(leaf: np.ndarray | jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
