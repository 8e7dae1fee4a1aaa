"""What stands where on the page of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polarjax.reports import page, study_figures, words

Summary = Mapping[str, Any]
FOOTER = (
    "Bits per spike: gain in log likelihood over a constant rate on trials that training never saw, averaged over "
    "units (Pillow et al. 2008). Interval: 95 %, t over seeds. Difference: of the same units and seeds; its interval "
    "is a bootstrap over units. Training: seconds of training steps; all: the whole process, "
    "compilation and report included."
)


def study_html(summary: Summary, truth: Mapping[str, float]) -> str:
    """Returns the HTML page of a study, figures inside.

    Args:
      summary: the fields of study.json.
      truth: {constant: value} where it is known.
    """
    seeds = ", ".join(map(str, summary["seeds"]))
    trained = sum(len(entry["seeds"]) for entry in summary["entries"])
    asked = len(summary["entries"]) * len(summary["seeds"])
    where = f"{summary['study']}: {len(summary['entries'])} entries, seeds {seeds}; {trained} of {asked} runs finished"
    parts = [
        _entries(summary),
        _costs(summary),
        _constants(summary, truth),
        page.section("Failed", "", page.bullets(_failures(summary))),
    ]
    return page.page(summary["question"], where, headline(summary), _tiles(summary), parts, FOOTER)


def headline(summary: Summary) -> str:
    """The result in one or two sentences: the best entry, and which differ from the reference."""
    ranked = _ranked(summary)
    if not ranked:
        return "No run has finished yet."
    best = ranked[0]
    text = f"{best['name']} explains most, {words.number(best['bits_per_spike']['mean'], 3)} bits per spike"
    if best["oracle_fraction"] is not None:
        text += f", {words.percent(best['oracle_fraction'])} of the oracle"
    text += "."
    compared = [entry for entry in ranked if entry["difference"] is not None]
    sides = {
        "better": [entry["name"] for entry in compared if entry["difference"]["interval"][0] > 0],
        "worse": [entry["name"] for entry in compared if entry["difference"]["interval"][1] < 0],
    }
    for side, names in sides.items():
        if names:
            text += f" {', '.join(names)} {_is(names)} {side} than {summary['reference']}."
    if any(sides.values()):
        return text
    if compared:
        text += f" None differs from {summary['reference']} by more than its units scatter."
    return text


def difference(found: Mapping[str, Any] | None) -> tuple[str, str]:
    """'+0.021 (+0.010 to +0.032)' and '31 of 40', the units that are better; dashes where nothing is compared."""
    if found is None:
        return "–", "–"
    bounds = " to ".join(f"{bound:+.3f}" for bound in found["interval"])
    return f"{found['mean']:+.3f} ({bounds})", f"{found['units_better']} of {found['units']}"


def steps(numbers: Sequence[int]) -> str:
    """Steps of the runs of an entry: one number, or the smallest and the largest."""
    if not numbers:
        return "–"
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def seconds(value: float | None) -> str:
    """A duration in seconds or minutes; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 10 else f"{value:,.0f} s" if value < 600 else f"{value / 60:,.0f} min"


def failure(entry: Mapping[str, Any]) -> str:
    """Which run failed, and why."""
    return f"{entry['entry']}, seed {entry['seed']}: {entry['error']}"


def _tiles(summary):
    tiles = {}
    ranked = _ranked(summary)
    for entry in ranked[:1]:
        tiles[f"bits per spike, {entry['name']}"] = words.number(entry["bits_per_spike"]["mean"], 3)
    for entry in summary["entries"]:
        if entry["name"] == summary["reference"] and entry not in ranked[:1]:
            tiles[f"bits per spike, {entry['name']} (reference)"] = words.number(
                entry["bits_per_spike"]["mean"], 3
            )
    for name, text in (("oracle", "oracle"), ("floor", "linear-nonlinear floor")):
        if summary[name] is not None:
            tiles[f"bits per spike, {text}"] = words.number(summary[name], 3)
    return tiles


def _entries(summary):
    heads = (
        "",
        "bits per spike",
        "95 % interval",
        "of oracle",
        "correlation",
        "difference (95 % interval)",
        "better",
    )
    lines = [
        (
            entry["name"],
            words.number(entry["bits_per_spike"]["mean"], 3),
            words.interval(entry["bits_per_spike"]["interval"]),
            words.percent(entry["oracle_fraction"]),
            words.number(entry["correlation_median"], 3),
            *difference(entry["difference"]),
        )
        for entry in summary["entries"]
    ]
    return page.section(
        "The entries",
        f"Diamonds: means, with 95 % intervals. Rings: seeds. Differences are to "
        f"{summary['reference']}; better: units above it.",
        page.image(
            study_figures.entries(summary),
            "bits per spike of every entry and its difference to the reference",
        ),
        page.table(heads, lines),
    )


def _costs(summary):
    heads = ("", "config", "runs", "steps", "parameters", "training", "all")
    lines = [
        (
            entry["name"],
            entry["config"],
            str(len(entry["seeds"])),
            steps(entry["num_steps"]),
            "–" if entry["parameters"] is None else f"{entry['parameters']:,}",
            seconds(entry["training_seconds"]),
            seconds(entry["wall_clock_seconds"]),
        )
        for entry in summary["entries"]
    ]
    return page.section(
        "What it cost", "Times are means over seeds, of runs one after the other.", page.table(heads, lines)
    )


def _constants(summary, truth):
    lines = [
        (
            f"{entry['name']}, {name}",
            words.number(found["start"], 1),
            words.number(found["mean"], 1),
            "–"
            if found["interval"] is None
            else " to ".join(words.number(bound, 1) for bound in found["interval"]),
            words.number(truth.get(name), 1),
        )
        for entry in summary["entries"]
        for name, found in entry["constants"].items()
    ]
    if not lines:
        return ""
    return page.section(
        "Learned constants",
        "From where a constant started to where it ended, mean over seeds."
        + (" Green: the truth." if truth else ""),
        page.image(study_figures.constants(summary, truth), "learned constants, start and end"),
        page.table(("", "start", "end", "95 % interval", "truth"), lines),
    )


def _failures(summary):
    return [failure(entry) for entry in summary["failures"]]


def _ranked(summary):
    known = [entry for entry in summary["entries"] if entry["bits_per_spike"]["mean"] is not None]
    return sorted(known, key=lambda entry: -entry["bits_per_spike"]["mean"])


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
