"""The numbers of a report in words and in the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]
FRAMEWISE = "framewise"  # config.model.kwargs.dynamics with which no amplitude depends on the frame before


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of digits; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share as '72 %'; a dash where there is none."""
    return "–" if share is None else f"{round(100 * share)} %"


def checkpoint(report: Report) -> str:
    """Which checkpoint the numbers are of, and why this one: 'checkpoint 750, best eval/bits_per_spike'."""
    chosen_by = report["checkpoint_chosen_by"]
    why = {"step": "", "latest": ", the latest"}.get(chosen_by, f", best {chosen_by}")
    return f"checkpoint {report['checkpoint_step']}{why}"


def headline(report: Report) -> str:
    """The result in two or three sentences."""
    return " ".join(filter(None, (_explained(report), *self_supervision(report), _remembered(report))))


def _explained(report: Report) -> str:
    bits = report["bits_per_spike"]["mean"]
    if not report["units"]:
        return "No session has units: nothing is said of spikes."
    if bits is None:
        return f"No unit has a spike in a scored bin of the {report['tier']} trials: nothing can be said of the model."
    text = f"On the {report['tier']} trials the model explains {number(bits)} bits per spike"
    if report["oracle_fraction"] is not None:
        oracle = number(report["oracle_bits_per_spike"]["mean"])
        text += f", {percent(report['oracle_fraction'])} of the oracle: the true rates explain {oracle}"
    text += "."
    baseline = report["linear_nonlinear"]
    if baseline is not None:
        text += f" A linear-nonlinear model of the same data explains {number(baseline['mean'])}."
    corrected = report["correlation"]["with_trial_mean"]
    if corrected is not None:
        text += f" The median correlation with the trial mean is {number(corrected['median'])}."
    return text


def self_supervision(report: Report) -> list[str]:
    """Sentences on what a self-supervised run learned, the alarm first; none for another run."""
    found = report.get("jepa")
    if not found:
        return []
    trained, untrained = found["trained"], found["untrained"]
    excess = trained["other_gaze_excess"]
    gaze = "" if excess is None else f", {excess:+.3f} with the gaze of other examples"
    spread = ", ".join(
        f"{name} {number(trained[name]['mean'])} ({number(untrained[name]['mean'])})"
        for name in ("deviation", "cosine", "rank")
    )
    return [
        *alarm(found),
        f"Self-supervision (untrained in brackets): loss {number(trained['loss'], 3)} "
        f"({number(untrained['loss'], 3)}){gaze}; codes: {spread} of {found['width']}.",
    ]


def alarm(found: Mapping[str, Any]) -> list[str]:
    """A sentence where the codes have collapsed; none where they have not."""
    if not found["collapsed"]:
        return []
    levels = found["trained"]["deviation"]["levels"]
    lowest = min(levels)
    return [
        f"ALARM: the codes have collapsed: their deviation at level {levels.index(lowest)} is {number(lowest, 3)}, "
        "below 0.1, where spread codes have 1. All inputs have nearly the same code, and a low loss says nothing. "
        "Train with a target network "
        "(config.model.jepa.target='ema') and a penalty against collapse (config.loss.weights.coding_rate > 0)."
    ]


def _remembered(report: Report) -> str:
    """How long amplitudes remember, or how fast they relax where 1/lambda is no memory; of the constants there are."""
    found = {key.split("/")[-1]: value for key, value in report["constants"].items()}
    framewise = report["dynamics"] == FRAMEWISE
    numbers = [
        (f"{found[f'lambda_{which}']:.3g}/s" if framewise else f"{found[f'tau_{which}_ms']:.0f} ms") + where
        for which, where in (("fix", " in fixation"), ("sac", " in saccades"))
        if f"lambda_{which}" in found
    ]
    if not numbers:
        return ""
    if framewise:
        return f"Amplitudes remember no frame before; within a frame they relax at {', '.join(numbers)}."
    return f"Amplitude memory: {', '.join(numbers)}."


def tested(report: Report) -> str:
    """What was evaluated: 'test trials, 70 units'."""
    return f"{report['tier']} trials, {report['units'] or 'no'} units"


def comparison(report: Report) -> list[tuple[str, str, str, str, str]]:
    """Rows (name, bits per spike, interval, median, share of the oracle) of model, linear-nonlinear model, oracle.

    None without units.
    """
    if not report["units"]:
        return []
    entries = {
        "model": report["bits_per_spike"],
        "linear-nonlinear": report["linear_nonlinear"],
        "oracle": report["oracle_bits_per_spike"],
    }
    oracle = (report["oracle_bits_per_spike"] or {}).get("mean")
    return [
        (
            name,
            number(entry["mean"], 3),
            interval(entry["interval"]),
            number(entry["median"], 3),
            percent(entry["mean"] / oracle if oracle and entry["mean"] is not None else None),
        )
        for name, entry in entries.items()
        if entry is not None
    ]


def constants(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows (constant, start, value with unit, memory) of the constants that the model has.

    The memory is in ms, or 'none' for the rates of a model whose amplitudes are those of single frames.
    """
    found, starts = (
        {key.split("/")[-1]: value for key, value in report[name].items()}
        for name in ("constants", "constants_start")
    )
    kinds = {
        "lambda_fix": ("relaxation in fixation", "/s"),
        "lambda_sac": ("relaxation in saccades", "/s"),
        "alpha_fast": ("fast average, decay", " a frame"),
        "alpha_slow": ("slow average, decay", " a frame"),
    }
    return [
        (
            words,
            f"{starts[name]:.3g}{unit}" if name in starts else "–",
            f"{found[name]:.3g}{unit}",
            "none"
            if report["dynamics"] == FRAMEWISE and name.startswith("lambda")
            else f"{found['tau_' + name.split('_')[1] + '_ms']:.0f} ms",
        )
        for name, (words, unit) in kinds.items()
        if name in found
    ]


def interval(bounds: Any) -> str:
    """'0.41 to 0.52'; a dash where there is none."""
    return "–" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def signed_interval(bounds: Any) -> str:
    """The interval of a difference, '-0.010 to +0.032'; a dash where there is none."""
    return "–" if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"
