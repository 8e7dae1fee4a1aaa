"""The figures of a study and of a comparison of two runs, each as an image that a page can embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from polarjax.reports.figures import BASELINE, DATA, FAINT, INK, MODEL, MUTED, STYLE, encode, make_figure

GAINED, LOST = "#2a9d6f", BASELINE
ROW, MARGIN = 0.4, 1.15  # inches
EDGE = "#b8c1cb"


def entries(summary: Mapping[str, Any]) -> str | None:
    """Bits per spike of every entry, seeds as dots, with oracle and floor, and the difference to its reference."""
    shown = [entry for entry in summary["entries"] if entry["bits_per_spike"]["mean"] is not None]
    if not shown:
        return None
    names = [entry["name"] for entry in shown]
    with matplotlib.style.context(STYLE):
        figure = make_figure(ROW * len(shown) + MARGIN)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _rows(left, names)
        _rows(right, [""] * len(names))
        for place, entry in enumerate(shown):
            color = INK if entry["name"] == summary["reference"] else MODEL
            _row(left, place, entry["bits_per_spike"], entry["bits_per_spike"]["interval"], color)
            _difference(right, place, entry, summary["reference"])
        for name, style in (("oracle", (0, (3, 2))), ("floor", (0, (1, 1.5)))):
            if summary[name] is not None:
                left.axvline(summary[name], color=MUTED, linewidth=1.1, linestyle=style, zorder=0)
                left.annotate(
                    name, (summary[name], 1), (0, 3), xycoords=("data", "axes fraction"), color=MUTED,
                    textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
                )  # fmt: skip
        right.axvline(0, color=EDGE, linewidth=1)
        left.margins(x=0.06)
        right.margins(x=0.12)
        left.set(xlabel="bits per spike, mean over units")
        references = {entry["reference"] for entry in shown if entry["reference"] is not None}
        to = "the entry's reference" if len(references) > 1 else summary["reference"]
        right.set(xlabel=f"difference to {to}, same units")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(6))
        return encode(figure)


def constants(summary: Mapping[str, Any], truth: Mapping[str, float]) -> str | None:
    """Where each learned constant starts (ring) and ends (dots: seeds; bar: interval), a panel a constant."""
    names = list(dict.fromkeys(name for entry in summary["entries"] for name in entry["constants"]))
    shown = [entry for entry in summary["entries"] if entry["constants"]]
    if not names:
        return None
    columns = min(len(names), 2)
    lines = -(-len(names) // columns)
    with matplotlib.style.context(STYLE):
        figure = make_figure(lines * (ROW * len(shown) + MARGIN))
        panels = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for name, axes in zip(names, panels, strict=False):
            _rows(axes, [entry["name"] for entry in shown])
            for place, entry in enumerate(shown):
                if name in entry["constants"]:
                    _constant(axes, place, entry["constants"][name])
            if name in truth:
                axes.axvline(truth[name], color=GAINED, linewidth=1.4, zorder=0)
            _scale_of_times(axes)
            axes.set(title=name.removesuffix("_ms"), xlabel="ms" if name.endswith("_ms") else "")
        _legend(panels[0], bool(truth))
        return encode(figure)


def scatter(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> str | None:
    """Bits per spike of every unit in two runs; and the differences in order with their intervals over trials."""
    kept = [row for row in rows if np.isfinite(row["difference"])]
    if not kept:
        return None
    kept.sort(key=lambda row: row["difference"])
    first, second, difference, low, high = (
        np.asarray([row[name] for row in kept]) for name in ("first", "second", "difference", "low", "high")
    )
    verdict = [row["verdict"] for row in kept]
    colors = [{"gained": GAINED, "lost": LOST}.get(word, DATA) for word in verdict]
    with matplotlib.style.context(STYLE):
        figure = make_figure(4.3)
        left, right = figure.subplots(1, 2)
        ends = min(first.min(), second.min(), 0.0), max(first.max(), second.max())
        room = 0.05 * (ends[1] - ends[0]) + 1e-3
        ends = ends[0] - room, ends[1] + room
        left.plot(ends, ends, color=EDGE, linewidth=1, zorder=0)
        left.scatter(first, second, s=24, color=colors, edgecolor="white", linewidth=0.5, zorder=3)
        left.set(
            xlabel=names[0], ylabel=names[1], title="bits per spike", xlim=ends, ylim=ends, aspect="equal"
        )
        place = np.arange(len(kept))
        right.grid(axis="y")
        right.axhline(0, color=EDGE, linewidth=1)
        right.vlines(place, low, high, color=colors, linewidth=1.3, alpha=0.55)
        right.scatter(place, difference, s=14, color=colors, zorder=3)
        right.set(title="difference, interval over trials", xlabel="unit, in order", xlim=(-1, len(kept)))
        legend = [
            Line2D([], [], linestyle="", marker="o", color=color, label=f"{verdict.count(word)} {word}")
            for word, color in (("gained", GAINED), ("lost", LOST), ("open", DATA))
        ]
        right.legend(handles=legend, loc="upper left", handletextpad=0.2)
        return encode(figure)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.hlines(
        range(len(names)), 0, 1, transform=axes.get_yaxis_transform(), color=FAINT, linewidth=0.8, zorder=0
    )


def _row(
    axes: Axes, place: int, numbers: Mapping[str, Any], interval: Sequence[float] | None, color: str
) -> None:
    """Draws a mean with its interval, and the numbers of the seeds that it is of."""
    each = numbers["each"]
    if interval is not None:
        axes.plot(interval, [place, place], color=color, linewidth=4.5, alpha=0.25)
    axes.scatter(
        each, [place + 0.25] * len(each), s=11, facecolor="white", edgecolor=color, linewidth=0.9, zorder=3
    )
    axes.scatter(
        numbers["mean"], place, s=44, color=color, marker="D", edgecolor="white", linewidth=0.8, zorder=4
    )


def _difference(axes: Axes, place: int, entry: Mapping[str, Any], reference: str) -> None:
    found = entry["difference"]
    if found is None:
        if entry["name"] == reference:
            axes.scatter(0, place, s=44, color=INK, marker="D", edgecolor="white", linewidth=0.8, zorder=4)
        return
    color = {"better": GAINED, "worse": LOST, "open": MUTED}[found["verdict"]]
    _row(axes, place, found, found["over_units"], color)
    if found["over_seeds"] is not None:
        axes.plot(found["over_seeds"], [place, place], color=color, linewidth=1)
    axes.annotate(
        f"{found['mean']:+.3f}", (found["mean"], place), (0, 6), textcoords="offset points", color=color, ha="center",
        va="bottom", fontsize=8,
    )  # fmt: skip


def _constant(axes: Axes, place: int, found: Mapping[str, Any]) -> None:
    start, end = found["start"], found["mean"]
    if start is not None:
        axes.annotate(
            "", (end, place), (start, place), arrowprops={"arrowstyle": "-", "color": DATA, "linewidth": 1.2}
        )
        axes.scatter(start, place, s=34, facecolor="white", edgecolor=MUTED, linewidth=1.3, zorder=2)
    _row(axes, place, found, found["interval"], MODEL)


def _scale_of_times(axes: Axes) -> None:
    """Memories are compared as ratios: a logarithmic axis with round numbers, at least a factor of two wide."""
    axes.set_xscale("log")
    axes.margins(x=0.12)
    low, high = axes.get_xlim()
    middle, half = np.sqrt(low * high), max(np.sqrt(high / low), 1.5)
    low, high = middle / half, middle * half
    axes.set_xlim(low, high)
    ladder = np.asarray([1, 2, 5]) * 10.0 ** np.arange(-2, 6)[:, None]
    if high / low < 6:
        ladder = np.asarray([1, 1.5, 2, 2.5, 3, 4, 5, 7]) * 10.0 ** np.arange(-2, 6)[:, None]
    axes.set_xticks([tick for tick in ladder.flat if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(axes: Axes, with_truth: bool) -> None:
    handles = [
        Line2D(
            [], [], linestyle="", marker="o", markerfacecolor="white", markeredgecolor=MUTED, label="start"
        ),
        Line2D([], [], linestyle="", marker="D", color=MODEL, label="end"),
    ]
    if with_truth:
        handles.append(Line2D([], [], color=GAINED, linewidth=1.4, label="truth"))
    axes.figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
