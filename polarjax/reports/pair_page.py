"""What stands where on the page that compares two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polarjax.reports import page, study_figures, words

SHOWN_UNITS = 10
FOOTER = (
    "Bits per spike: gain in log likelihood over a constant rate, the mean of the training split (Pillow et al. 2008), "
    "on the bins that both runs score. A unit is gained or lost where the 95 % interval of its difference, a bootstrap "
    "over groups (a trial with those that repeat its stimulus; blocks of 1 s where they are fewer than 10), lies above "
    "or below 0; of units that do not differ, one in forty falls on either side by chance. Fewer than 5 groups have no "
    "interval. That of the mean is a bootstrap over units."
)


def pair_html(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the HTML page of a comparison.

    Args:
      summary: the fields of pair.json.
      rows: of `pair.unit_rows`.
    """
    first, second = (run["name"] for run in summary["runs"])
    checkpoints = "; ".join(f"{run['name']}: {words.checkpoint(run)}" for run in summary["runs"])
    units = summary["units"]
    where = f"{checkpoints}; {summary['tier']} trials, {units} units"
    tiles = {
        f"bits per spike, {first}": words.number(summary["first"], 3),
        f"bits per spike, {second}": words.number(summary["second"], 3),
        "units gained": str(summary["gained"]),
        "units lost": str(summary["lost"]),
    }
    parts = [
        page.section(
            "Unit by unit",
            f"Green: units that {second} predicts better, by their groups of trials. Orange: worse. Grey: open.",
            page.image(
                study_figures.scatter(rows, (first, second)), "bits per spike of every unit in both runs"
            ),
        ),
        page.section(
            "The largest differences",
            "",
            page.table(
                ("unit", first, second, "difference", "95 % interval", "groups", "spikes", ""), _largest(rows)
            ),
        ),
    ]
    return page.page(f"{second} against {first}", where, headline(summary), tiles, parts, FOOTER)


def headline(summary: Mapping[str, Any]) -> str:
    """The result in two sentences."""
    if summary["difference"] is None:
        return "No unit has a spike in a bin that both runs score: nothing can be compared."
    first, second = (run["name"] for run in summary["runs"])
    mean = f"mean over {summary['units']} units" if summary["interval"] else "of one unit"
    bounds = f" ({words.signed_interval(summary['interval'])})" if summary["interval"] else ""
    return (
        f"{second} explains {summary['difference']:+.3f} bits per spike{bounds} against {first}, {mean}. "
        f"It gains {summary['gained']} of them and loses {summary['lost']}."
    )


def _largest(rows):
    known = [row for row in rows if np.isfinite(row["difference"])]
    known.sort(key=lambda row: -abs(row["difference"]))
    return [
        (
            f"{row['session']} / {row['unit']}",
            words.number(row["first"], 3),
            words.number(row["second"], 3),
            f"{row['difference']:+.3f}",
            words.signed_interval((row["low"], row["high"]) if np.isfinite(row["low"]) else None),
            str(row["groups"]),
            f"{row['spikes']:,.0f}",
            row["verdict"],
        )
        for row in known[:SHOWN_UNITS]
    ]
