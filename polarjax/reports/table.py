"""The tables that training, evaluation and comparison print at their end."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from polarjax.reports import pair_page, study_page, words

TRIAL_MEAN = "with trial mean"
DISPENSABLE = ("training", "steps", TRIAL_MEAN, "95 %")
WIDE = 1000


def print_table(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints bits per spike of the model, the linear-nonlinear model and the oracle, then the learned constants.

    Without units there are no bits per spike to print. Of self-supervision, where there is any, loss and spread of the
    codes are printed before the constants, with an alarm where they have collapsed.

    Args:
      report: what `evaluate.write_report` returned.
      console: where to print; None is the standard output.
    """
    console = console or Console()
    title = f"{words.tested(report)}; {words.checkpoint(report)}"
    heads = ("", "bits per spike", "95 % interval", "median", "of oracle")
    _print_rows(console, title, heads, words.comparison(report))
    left_out = report["units_left_out"]
    if left_out:
        console.print(
            f"{len(left_out)} of {report['units']} units left out of the means: no spikes or no valid bins"
        )
    for sentence in words.self_supervision(report):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for name, start, value, memory in words.constants(report):
        console.print(f"{name}: {value}, memory {memory} (at the start {start})", highlight=False)


def _print_rows(console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, the first column text and the others numbers; the title alone where there are no rows."""
    if not rows:
        console.print(title, style="bold", highlight=False)
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_study(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a row an entry: bits per spike over seeds, the difference to its reference, steps and training time.

    Where trials are repeated, the correlation with their mean stands beside them. Where the terminal is too narrow for
    all columns, those of `DISPENSABLE` are left to the page, in this order.

    Args:
      summary: the fields of study.json.
      console: where to print; None is the standard output.
    """
    console = console or Console()
    title = f"{summary['study']}: {summary['question']}"
    columns = _study_columns(summary)
    table, wide = _study_table(title, columns), console.options.update(width=WIDE)
    for name in DISPENSABLE:
        if console.measure(table, options=wide).maximum > console.width:
            columns = [column for column in columns if name not in column[0]]
            table = _study_table(title, columns)
    console.print(table)
    for line in study_page.others(summary):
        console.print(f"differences of {line}", markup=False, highlight=False)
    for run in study_page.missing(summary):
        console.print(f"not finished: {run}", markup=False, highlight=False)
    for failure in summary["failures"]:
        console.print(f"failed: {study_page.failure(failure)}", markup=False, highlight=False)
    console.print(f"report: {Path(summary['workdir']) / 'study.html'}", highlight=False, soft_wrap=True)


def _study_columns(summary: Mapping[str, Any]) -> list[list[str]]:
    """Returns the columns of the table of a study, the head of each first."""
    against = (f"against {summary['reference']}", "over units", "over seeds")
    repeated = study_page.repeated(summary)
    correlation = (TRIAL_MEAN, f"{TRIAL_MEAN}, 95 %") if repeated else ()
    rows: list[tuple[str, ...]] = [
        ("", "bits per spike", "95 %", *against, *correlation, "steps", "training")
    ]
    for entry in summary["entries"]:
        bits = entry["bits_per_spike"]
        numbers = words.number(bits["mean"], 3), words.interval(bits["interval"])
        numbers += study_page.difference(entry["difference"])[:3]
        numbers += study_page.trial_mean(entry) if repeated else ()
        cost = study_page.steps(entry["num_steps"]), study_page.seconds(entry["training_seconds"])
        rows.append((entry["name"], *numbers, *cost))
    return [list(column) for column in zip(*rows, strict=True)]


def _study_table(title: str, columns: Sequence[Sequence[str]]) -> Table:
    narrow = {"box": box.SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False}
    table = Table(title=title, title_justify="left", title_style="bold", **narrow)
    for place, (head, *cells) in enumerate(columns):
        width = max(map(len, (*head.split(), *cells)), default=1)  # heads may be broken, numbers not
        table.add_column(textwrap.fill(head, width), justify="right" if place else "left", no_wrap=True)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table


def print_pair(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what `pair.compare_runs` returned, in two sentences."""
    console = console or Console()
    console.print(pair_page.headline(summary), markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {Path(summary['workdir']) / 'pair.html'}", highlight=False, soft_wrap=True)
