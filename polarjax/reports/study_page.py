"""What stands where on the page of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polarjax.reports import page, study_figures, words
from polarjax.reports.study_results import TRIAL_MEAN

Summary = Mapping[str, Any]
FOOTER = (
    "Bits per spike: gain in log likelihood over a constant rate on trials that training never saw, averaged over "
    "units (Pillow et al. 2008). Interval: 95 %, t over seeds. Difference: of the same units and seeds; over units: "
    "95 %, a bootstrap; over seeds: 95 %, t of the means of the seeds. An entry is better or worse where both exclude "
    "0. Training: seconds of training steps; all: the whole process, compilation and report included."
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
        _metrics(summary),
        page.section("Failed", "", page.bullets(_failures(summary))),
        page.section(
            "Not finished", "No number of these runs is in this page.", page.bullets(missing(summary))
        ),
    ]
    return page.page(summary["question"], where, headline(summary), _tiles(summary), parts, FOOTER)


def headline(summary: Summary) -> str:
    """The result in a few sentences: the best entry, which differ from the reference, and what is missing."""
    ranked = _ranked(summary)
    if not ranked:
        trained = any(entry["seeds"] for entry in summary["entries"])
        return "No finished run has bits per spike." if trained else "No run has finished yet."
    best = ranked[0]
    text = f"{best['name']} explains most, {words.number(best['bits_per_spike']['mean'], 3)} bits per spike"
    if best["oracle_fraction"] is not None:
        text += f", {words.percent(best['oracle_fraction'])} of the oracle"
    text += "."
    compared = [entry for entry in ranked if entry["difference"]]
    for reference in references(summary):
        text += _sides(compared, reference)
        if reference not in [entry["name"] for entry in ranked]:
            lacks = "bits per spike" if reference in preparations(summary) else "finished run"
            which = "the" if reference == summary["reference"] else "a"
            text += f" {reference}, {which} reference, has no {lacks}: nothing is compared with it."
    finished = sum(len(entry["seeds"]) for entry in summary["entries"])
    asked = len(summary["entries"]) * len(summary["seeds"])
    return text if finished == asked else f"{text} Only {finished} of {asked} runs have finished."


def difference(found: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    """Mean '+0.021', its intervals over units and over seeds, and '31 of 40', the units that are better; or dashes."""
    if found is None:
        return "–", "–", "–", "–"
    units, seeds = (words.signed_interval(found[name]) for name in ("over_units", "over_seeds"))
    return f"{found['mean']:+.3f}", units, seeds, f"{found['units_better']} of {found['units']}"


def references(summary: Summary) -> dict[str, list[str]]:
    """{reference: the entries that are compared with it}, that of the study first."""
    compared: dict[str, list[str]] = {summary["reference"]: []}
    for entry in summary["entries"]:
        if entry["reference"] is not None:
            compared.setdefault(entry["reference"], []).append(entry["name"])
    return compared


def others(summary: Summary) -> list[str]:
    """'full_relaxed, full_fast: to full_original' for every reference but that of the study."""
    return [f"{', '.join(names)}: to {name}" for name, names in list(references(summary).items())[1:]]


def missing(summary: Summary) -> list[str]:
    """'polar, seeds 1, 2' for every entry with runs that are not finished and did not fail."""
    seeds: dict[str, list[str]] = {}
    for run in summary["missing"]:
        seeds.setdefault(run["entry"], []).append(str(run["seed"]))
    return [f"{name}, seed{'s' if len(left) > 1 else ''} {', '.join(left)}" for name, left in seeds.items()]


def preparations(summary: Summary) -> list[str]:
    """Names of the entries whose finished runs have no bits per spike; they stand in no comparison."""
    return [
        entry["name"]
        for entry in summary["entries"]
        if entry["seeds"] and entry["bits_per_spike"]["mean"] is None
    ]


def repeated(summary: Summary) -> bool:
    """Whether an entry has a correlation with the mean over repeated trials."""
    return any(entry[TRIAL_MEAN]["mean"] is not None for entry in summary["entries"])


def trial_mean(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Correlation of prediction and mean over repeated trials, median over units, and its interval over seeds."""
    found = entry[TRIAL_MEAN]
    return words.number(found["mean"], 3), words.interval(found["interval"])


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


def _sides(everything: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Says which entries are better or worse than their reference, and which have one seed to say it."""
    compared, text = [entry for entry in everything if entry["reference"] == reference], ""
    for side in ("better", "worse"):
        names = [entry["name"] for entry in compared if entry["difference"]["verdict"] == side]
        if names:
            text += f" {', '.join(names)} {_is(names)} {side} than {reference}."
    once = [entry["name"] for entry in compared if len(entry["difference"]["seeds"]) == 1]
    if compared and not text and len(once) < len(compared):
        text = f" None differs from {reference} by more than units and seeds scatter."
    if once:
        which = "All" if len(once) == len(everything) > 1 else ", ".join(once)
        verb = "is" if which == once[0] else "are"
        text += (
            f" {which} {verb} compared with {reference} on one seed, which may be its luck: no side is taken."
        )
    return text


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
    correlated = repeated(summary)
    heads = (
        "",
        "bits per spike",
        "95 % interval",
        "of oracle",
        "correlation",
        *(("with trial mean", "95 % interval") if correlated else ()),
        "difference",
        "over units",
        "over seeds",
        "better",
    )
    lines = [
        (
            entry["name"],
            words.number(entry["bits_per_spike"]["mean"], 3),
            words.interval(entry["bits_per_spike"]["interval"]),
            words.percent(entry["oracle_fraction"]),
            words.number(entry["correlation_median"], 3),
            *(trial_mean(entry) if correlated else ()),
            *difference(entry["difference"]),
        )
        for entry in summary["entries"]
        if entry["name"] not in preparations(summary)
    ]
    left_out, elsewhere = ", ".join(preparations(summary)), "; ".join(others(summary))
    return page.section(
        "The entries",
        f"Diamonds: means. Rings: seeds. Bars: 95 % intervals, of differences over units; thin lines: over seeds. "
        f"Differences are to {summary['reference']}{f'; {elsewhere}' if elsewhere else ''}. In colour: both intervals "
        "exclude 0. Better: units above the reference. Correlations: medians over units, mean over seeds."
        + (f" Without bits per spike, and in no comparison: {left_out}." if left_out else ""),
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
    framewise = [entry for entry in summary["entries"] if entry["dynamics"] == words.FRAMEWISE]
    alone = [entry["name"] for entry in framewise if entry["constants"]]
    return page.section(
        "Learned constants",
        "From where a constant started to where it ended, mean over seeds."
        + (" Green: the truth." if truth else "")
        + (
            f" {', '.join(alone)}: no amplitude remembers the frame before, tau is 1/rate alone."
            if alone
            else ""
        ),
        page.image(study_figures.constants(summary, truth), "learned constants, start and end"),
        page.table(("", "start", "end", "95 % interval", "truth"), lines),
    )


def _metrics(summary):
    names = list(dict.fromkeys(name for entry in summary["entries"] for name in entry["metrics"]))
    lines = [
        (entry["name"], *(_seeds(entry["metrics"][name]) for name in names)) for entry in summary["entries"]
    ]
    if not names:
        return ""
    text = "Validation tier, at the end of training: mean over seeds, and each seed."
    return page.section("Other numbers", text, page.table(("", *names), lines))


def _seeds(found: Mapping[str, Any]) -> str:
    if not found["each"]:
        return "–"
    each = ", ".join(words.number(value, 3) for value in found["each"])
    return f"{words.number(found['mean'], 3)} ({each})"


def _failures(summary):
    return [failure(entry) for entry in summary["failures"]]


def _ranked(summary):
    known = [entry for entry in summary["entries"] if entry["bits_per_spike"]["mean"] is not None]
    return sorted(known, key=lambda entry: -entry["bits_per_spike"]["mean"])


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
