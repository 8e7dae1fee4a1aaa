"""The table that training and evaluation print at their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from polarjax.reports import words


def print_table(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints bits per spike of the model, the linear-nonlinear model and the oracle, then the learned constants.

    Args:
      report: what `evaluate.write_report` returned.
      console: where to print; None is the standard output.
    """
    console = console or Console()
    title = f"{report['tier']} trials, {report['units']} units; {words.checkpoint(report)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    heads = ("", "bits per spike", "95 % interval", "median", "of oracle")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in words.comparison(report):
        table.add_row(*row)
    console.print(table)
    left_out = report["units_left_out"]
    if left_out:
        console.print(
            f"{len(left_out)} of {report['units']} units left out of the means: no spikes or no valid bins"
        )
    for name, start, value, memory in words.constants(report):
        console.print(f"{name}: {value}, a memory of {memory} (at the start {start})", highlight=False)
