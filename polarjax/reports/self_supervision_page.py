"""What the page of a report says of self-supervision; nothing for a run without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polarjax.reports import figures, page, words

Curves = Mapping[str, Sequence[tuple[int, float]]]
EXPLAINED = {
    "deviation": "deviation of the codes: 1 spread, 0 collapsed",
    "cosine": "cosine of two codes: 0 spread, 1 collapsed",
    "rank": "directions of the codes (RankMe): {width} at most, 1 collapsed",
    "coding_rate": "coding rate R of the codes, nats",
    "rate": "R as a share of the largest: 1 spread, 0 collapsed",
}


def tiles(report: Mapping[str, Any]) -> dict[str, str]:
    """The numbers to see first."""
    found = report.get("jepa")
    if not found:
        return {}
    return {
        "loss of self-supervision": words.number(found["trained"]["loss"], 3),
        "deviation of the codes, 0 is collapse": words.number(found["trained"]["deviation"]["mean"]),
    }


def sections(report: Mapping[str, Any], curves: Curves) -> list[str]:
    """The numbers of the evaluated tier beside those of the untrained model, and their course over training.

    Args:
      report: the fields of report.json.
      curves: of metrics.jsonl.
    """
    found = report.get("jepa")
    if not found:
        return []
    text = (
        f"How well the code of later summaries is predicted on the {report['tier']} trials, and how spread the codes "
        "are. Untrained: the same model as it is drawn, also where the run started from another; levels: of the "
        "trained one. A low loss is worth nothing "
        "where the codes have collapsed, and no gain where the gaze of other examples predicts as well."
    )
    levels = len(found["trained"]["deviation"]["levels"])
    heads = ("", "trained", "untrained", *(f"level {level}" for level in range(levels)))
    return [
        page.section("Self-supervision: the codes have collapsed", " ".join(words.alarm(found)), " ")
        if found["collapsed"]
        else "",
        page.section("Self-supervision", text, page.table(heads, _rows(found, levels))),
        _probes(report, found["probes"]),
        page.section(
            "Self-supervision over training",
            "Validation trials, but for the training loss.",
            page.image(figures.curves(_panels(curves, levels)), "loss, deviation and rank over steps"),
        ),
    ]


def _rows(found: Mapping[str, Any], levels: int) -> list[tuple[str, ...]]:
    trained, untrained = found["trained"], found["untrained"]
    losses = {
        "loss": "loss: 0 predicted, 1 - √cosine by one code for all",
        "loss_other_gaze": "loss with the gaze of other examples",
        "other_gaze_excess": ".. higher by; 0 where the gaze is of no use",
    }
    rows: list[tuple[str, ...]] = [
        (text, words.number(trained[name], 3), words.number(untrained[name], 3), *([""] * levels))
        for name, text in losses.items()
        if trained[name] is not None
    ]
    for name, text in EXPLAINED.items():
        values = (trained[name]["mean"], untrained[name]["mean"], *trained[name]["levels"])
        rows.append((text.format(width=found["width"]), *(words.number(value) for value in values)))
    return rows


def _probes(report: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    number, delta = found["segments"], found["delta_frames"]
    text = (
        f"R² of a ridge regression from what the frozen model knows at the last frame of a segment, fitted on "
        f"{number['fitted']:,} training segments, on {number['tested']:,} segments of the {report['tier']} trials: 1 "
        "is exact, 0 no better than the mean. What is not above the untrained model was not learned."
    )
    targets = {
        "gaze_dx": f"gaze in {delta} frames, to the right",
        "gaze_dy": f"gaze in {delta} frames, upwards",
        "scene": "window on 5 × 5 places",
    }
    sources = {"code": "code", "summaries": "summaries on 3 × 3 places"}
    rows = [
        (f"{name} from the {source}", *(words.number(scores[state]) for state in ("trained", "untrained")))
        for target, name in targets.items()
        for source, scores in ((label, found["r2"][key][target]) for key, label in sources.items())
    ]
    return page.section("Linear probes", text, page.table(("", "trained", "untrained"), rows))


def _panels(curves: Curves, levels: int) -> dict[str, dict[str, Any]]:
    losses = {
        "training": "train/loss_jepa",
        "validation": "jepa/loss",
        "gaze of others": "jepa/loss_other_gaze",
    }
    panels = {"loss": losses} | {
        name: {f"level {level}": f"jepa/{name}_{level}" for level in range(levels)}
        for name in ("deviation", "rank")
    }
    return {
        title: {label: curves[path] for label, path in lines.items() if path in curves}
        for title, lines in panels.items()
    }
