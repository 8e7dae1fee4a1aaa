"""What stands where on the page of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polarjax.reports import figures, page, self_supervision_page, words
from polarjax.reports.parameters import find_filters, find_places
from polarjax.reports.predictions import SessionPrediction
from polarjax.reports.runs import Run
from polarjax.reports.saccades import THRESHOLD_DEG_PER_S, saccade_triggered_average

Curves = Mapping[str, Sequence[tuple[int, float]]]
FOOTER = (
    "Bits per spike: gain in log likelihood over a constant rate, the mean of the training split, divided by "
    "the number of spikes (Pillow et al. 2008). Intervals: 95 %, bootstrap over units."
)


def report_page(
    run: Run,
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[SessionPrediction],
    curves: Curves,
) -> str:
    """Returns the HTML page of a report, figures inside."""
    sessions = len(report["sessions"])
    where = (
        f"{report['run']}, {words.checkpoint(report)}; {report['tier']} trials of {sessions} "
        f"session{'s' * (sessions != 1)}: "
        + (f"{report['units']} units, {report['spikes']:,} spikes" if rows else "no units")
    )
    of_units = (_units(report, rows), _traces(predictions, rows, run.info.rate_hz)) if rows else ()
    parts = [
        _comparison(report),
        *of_units,
        _saccades(predictions, run.info.rate_hz) if rows else "",
        *_learned(run, predictions, bool(rows)),
        *self_supervision_page.sections(report, curves),
        *_training(curves, framewise=report["dynamics"] == words.FRAMEWISE),
        _sessions(report) if rows else "",
        _left_out(report),
    ]
    footer = FOOTER if rows else ""
    return page.page("Polar-V1 report", where, words.headline(report), _tiles(report), parts, footer)


def _tiles(report):
    return (_tiles_of_units(report) if report["units"] else {}) | self_supervision_page.tiles(report)


def _tiles_of_units(report):
    bits, correlation = report["bits_per_spike"], report["correlation"]
    tiles = {"bits per spike, mean over units": words.number(bits["mean"])}
    if report["oracle_fraction"] is not None:
        tiles["of the oracle"] = words.percent(report["oracle_fraction"])
    tiles["correlation, median over units"] = words.number(correlation["median"])
    if correlation["with_trial_mean"] is not None:
        tiles["correlation with the trial mean, median"] = words.number(
            correlation["with_trial_mean"]["median"]
        )
    if report["noise_corrected_correlation"] is not None:
        tiles["noise-corrected correlation, median"] = words.number(
            report["noise_corrected_correlation"]["median"]
        )
    return tiles


def _comparison(report):
    heads = ("", "bits per spike", "95 % interval", "median", "of the oracle")
    compared, constants = words.comparison(report), words.constants(report)
    explained = {
        "linear_nonlinear": "The linear-nonlinear model is trained on the same data.",
        "oracle_bits_per_spike": "The oracle knows the rates that generated the counts.",
    }
    return page.section(
        "Model against its floor and its ceiling" if report["units"] else "Time constants",
        " ".join(text for name, text in explained.items() if report[name] is not None),
        page.table(heads, compared) if compared else "",
        page.table(("time constant", "at the start", "value", "memory"), constants) if constants else "",
    )


def _units(report, rows):
    shown = report["units"] - len(report["units_left_out"])
    return page.section(
        "Bits per spike of every unit",
        f"{shown} units, best first. 0 is a constant rate.",
        page.image(figures.units(rows), "bits per spike of every unit, sorted"),
    )


def _traces(predictions, rows, rate_hz):
    return page.section(
        "Predicted and observed rates",
        "Units from the best to the last quarter, each on one trial that training never saw, smoothed by a Gaussian "
        "of 25 ms.",
        page.image(figures.traces(predictions, rows, rate_hz), "predicted and observed rates of four units"),
    )


def _saccades(predictions, rate_hz):
    number, average = saccade_triggered_average(predictions, rate_hz)
    title = "Rates around saccades"
    if number == 0:
        text = (
            f"The gaze of these trials never moves faster than {THRESHOLD_DEG_PER_S:.0f} deg/s: "
            "no saccades to align to."
        )
        return page.section(title, text, " ")
    text = (
        f"Mean over units around the onset of {number:,} saccades, where the speed of the gaze rises above "
        f"{THRESHOLD_DEG_PER_S:.0f} deg/s. The band is two standard errors of the data over saccades."
    )
    return page.section(
        title, text, page.image(figures.saccades(average), "rate around saccades, model and data")
    )


def _learned(run, predictions, recorded):
    bank, places = find_filters(run.params), find_places(run.params) if recorded else None
    height, width = run.info.frame_shape[:2]
    extent = (width / run.info.pixels_per_degree, height / run.info.pixels_per_degree)
    return (
        page.section(
            "Learned filters",
            "Even filter above, odd filter below; the pairs of the largest norm, each on its own grey scale.",
            page.image(figures.filters(*bank), "even and odd filters") if bank else "",
        ),
        page.section(
            "Where the units look",
            "Dots and ellipses: centre and one standard deviation of the readout. Crosses: where the counts follow "
            "the local energy, the start of training. The square is the window.",
            page.image(figures.positions(places, predictions, extent), "readout positions") if places else "",
        ),
    )


def _training(curves, *, framewise):
    constants = {
        name.split("/")[-1]: points for name, points in curves.items() if name.startswith("temporal/tau")
    }
    groups = {
        "1/rate of relaxation, no memory (ms)" if framewise else "amplitude memory (ms)": {
            name: constants[name] for name in ("tau_fix_ms", "tau_sac_ms") if name in constants
        },
        "summary memory (ms)": {
            name: constants[name] for name in ("tau_fast_ms", "tau_slow_ms") if name in constants
        },
    }
    learning = {
        title: {title: curves[name]} if name in curves else {}
        for title, name in (
            ("training loss", "train/loss"),
            ("validation bits per spike", "eval/bits_per_spike"),
        )
    }
    return (
        page.section(
            "Time constants over training",
            "",
            page.image(figures.curves(groups), "time constants over steps"),
        ),
        page.section(
            "Learning curve", "", page.image(figures.curves(learning), "loss and bits per spike over steps")
        ),
    )


def _sessions(report):
    heads = (
        "session",
        "units",
        "bits per spike",
        "median",
        "of the oracle",
        "correlation",
        "with trial mean",
    )
    lines = [
        (
            entry["session"],
            str(entry["units"]),
            words.number(entry["bits_per_spike"]["mean"], 3),
            words.number(entry["bits_per_spike"]["median"], 3),
            words.percent(entry["oracle_fraction"]),
            words.number(entry["correlation"]["median"]),
            words.number((entry["correlation"]["with_trial_mean"] or {}).get("median")),
        )
        for entry in report["sessions"]
    ]
    return page.section("Sessions", "Correlations are medians over units.", page.table(heads, lines))


def _left_out(report):
    lines = [f"{entry['session']} / {entry['unit']}: {entry['why']}" for entry in report["units_left_out"]]
    return page.section("Units left out of the means", "", page.bullets(lines))
