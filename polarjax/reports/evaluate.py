"""Evaluates a checkpoint on a tier and writes what was found: report.json, units.csv, report.html."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from polarjax import data as data_module
from polarjax import systems
from polarjax.core import FORMAT_VERSION, CheckpointError, Data, DataError, DataInfo, System
from polarjax.engine.history import METRICS, read_curves
from polarjax.engine.workdir import flat_config
from polarjax.reports import layout, numbers, self_supervision
from polarjax.reports.predictions import SessionPrediction, predict_sessions
from polarjax.reports.runs import Run, open_run

LINEAR_NONLINEAR = "linear_nonlinear"
TEST_TIER = 2


def write_report(
    workdir: str | os.PathLike[str], step: int | str | None = None, tier: int = TEST_TIER
) -> dict[str, Any]:
    """Evaluates a checkpoint and writes eval/<step>/, or eval/<step>/<tier> for a tier other than test.

    The data are opened again as the config in the checkpoint says. A linear-nonlinear run in
    <workdir>/linear_nonlinear is evaluated on the same tier.

    Args:
      step: step of a checkpoint, 'best' or 'latest'; None takes the best, by config.train.best_metric.
      tier: 0 train, 1 validation, 2 test.

    Returns:
      The fields of report.json.

    Raises:
      CheckpointError: no such directory or step, or a damaged checkpoint, or a report that cannot be written.
      DataError: the sessions are missing, or their units are not those of the checkpoint.
    """
    run = open_run(workdir, step)
    with open_data(run) as (system, data):
        predictions = predict_sessions(run.config, system, data, run.params, run.model_state, tier)
        learned = self_supervision.measure_run(run, system, data, tier)
        constants = {name: float(value) for name, value in system.constants(run.params).items()}
    rows = numbers.unit_rows(predictions, run.info.rate_hz)
    report = _report(run, tier, rows, constants)
    if self_supervision.is_self_supervised(run.config):
        report["jepa"] = numbers.without_nan(learned)
    curves = read_curves(run.workdir / METRICS)
    contents = {
        "report.json": json.dumps(report, indent=2, allow_nan=False) + "\n",
        "units.csv": csv_text(rows, numbers.COLUMNS),
        "report.html": layout.report_page(run, report, rows, predictions, curves),
    }
    write_files(report_folder(run.workdir, run.step, tier), contents)
    return report


def report_folder(workdir: pathlib.Path, step: int, tier: int = TEST_TIER) -> pathlib.Path:
    """Where the report of a checkpoint lies: eval/<step>, or eval/<step>/<tier> for a tier other than test."""
    folder = workdir / "eval" / str(step)
    return folder if tier == TEST_TIER else folder / numbers.TIER_NAMES[tier]


def predict_run(run: Run, tier: int) -> list[SessionPrediction]:
    """Predicts a tier of the data that the run's config names, a prediction a session.

    Raises:
      DataError: the sessions are missing, or their units are not those of the checkpoint.
    """
    with open_data(run) as (system, data):
        return predict_sessions(run.config, system, data, run.params, run.model_state, tier)


@contextlib.contextmanager
def open_data(run: Run) -> Iterator[tuple[System, Data]]:
    """Opens the data that the run's config names and builds its system; closes the data at the end.

    All of it also in one of several processes: reports are written by one alone.

    Raises:
      DataError: the sessions are missing, or their units are not those of the checkpoint.
    """
    data = data_module.build(run.config.data, whole=True)
    try:
        check_units(run.info, data.info)
        yield systems.build(run.config, run.info), data
    finally:
        data.close()


def check_units(trained: DataInfo, found: DataInfo) -> None:
    """Makes sure that the sessions found are those of the checkpoint.

    Raises:
      DataError: other sessions, or other units in one of them.
    """
    names = [[session.name for session in info.sessions] for info in (trained, found)]
    if names[0] != names[1]:
        raise DataError(
            f"the checkpoint was trained on sessions {names[0]}, found {names[1]}; expected the same in the "
            "same order. Usual cause: a session folder was moved or renamed; put it back"
        )
    for before, now in zip(trained.sessions, found.sessions, strict=True):
        if before.unit_ids != now.unit_ids:
            changed = sorted(set(before.unit_ids) ^ set(now.unit_ids))[:5] or "their order"
            raise DataError(
                f"session {now.name} ({now.path or 'embedded'}) has {len(now.unit_ids)} units, the checkpoint was "
                f"trained on {len(before.unit_ids)}; different: {changed}. Usual cause: the session was written again; "
                "put the old one back, or train again"
            )
        if before.fingerprint != now.fingerprint:
            raise DataError(
                f"session {now.name} ({now.path or 'embedded'}) holds other arrays than the checkpoint was trained "
                f"on (fingerprint {now.fingerprint[:12]}, expected {before.fingerprint[:12]}). Usual cause: the "
                "session was written again; put the old one back, or train again"
            )


def _report(
    run: Run, tier: int, rows: Sequence[dict[str, Any]], constants: dict[str, float]
) -> dict[str, Any]:
    fields = {
        "format_version": FORMAT_VERSION,
        "run": run.workdir.resolve().name,
        "checkpoint_step": run.step,
        "checkpoint_chosen_by": run.chosen_by,
        "tier": numbers.TIER_NAMES[tier],
        **numbers.summarize(rows),
        "linear_nonlinear": _linear_nonlinear(run, tier),
        "dynamics": flat_config(run.config.to_dict()).get("model.kwargs.dynamics"),
        "constants": constants,
        "constants_start": run.source["constants"]
        if run.source
        else systems.starting_constants(run.config, run.info),
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(run.params)),
        "sessions": numbers.summarize_sessions(rows, [session.name for session in run.info.sessions]),
    }
    return numbers.without_nan(fields)


def _linear_nonlinear(run: Run, tier: int) -> dict[str, Any] | None:
    folder = run.workdir / LINEAR_NONLINEAR
    if not (folder / "checkpoints").is_dir():
        return None
    report = write_report(folder, None, tier)
    return {name: report["bits_per_spike"][name] for name in ("mean", "median", "interval")}


def csv_text(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as a CSV file; empty where a number is NaN or None.

    Args:
      columns: names of the header; None takes them from the first row, which there has to be.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if columns is None else columns)
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else value for name, value in numbers.without_nan(row).items()}
        for row in rows
    )
    return stream.getvalue()


def write_files(folder: pathlib.Path, contents: dict[str, str]) -> None:
    """Writes every file beside its place and moves it there, so that no reader sees half of one.

    Raises:
      CheckpointError: the storage refuses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            part = folder / f".{name}.{os.getpid()}"
            part.write_text(text, encoding="utf-8")
            part.replace(folder / name)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the report to {folder}: {error.strerror}; the work directory must be writable and "
            "the disk not full"
        ) from error
