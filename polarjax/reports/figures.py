"""The figures of a report, each as an image that a page can embed."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from polarjax.reports.parameters import Places
from polarjax.reports.predictions import SessionPrediction

INK, MUTED, FAINT = "#1b2733", "#66727f", "#dfe4ea"
MODEL, DATA, ORACLE, BASELINE = "#1f6fd6", "#9aa5b1", "#1b2733", "#d2691e"
SESSION_COLORS = ("#1f6fd6", "#d2691e", "#2a9d6f", "#8e5bd0", "#c2456b", "#b08a00")
STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": "#b8c1cb",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
N_TRACES, TRACE_S, SMOOTHING_S = 4, 3.0, 0.025
N_FILTERS = 24
WIDTH = 9.2


def make_figure(height: float) -> Figure:
    """An empty figure of a report's width; `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def encode(figure: Figure) -> str:
    """The figure as a PNG inside a data URL."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def units(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bits per spike of every unit, best first, with the oracle's where the true rates are known."""
    kept = [row for row in rows if np.isfinite(row["bits_per_spike"])]
    kept.sort(key=lambda row: -row["bits_per_spike"])
    bits = np.asarray([row["bits_per_spike"] for row in kept])
    oracle = np.asarray([row["oracle_bits_per_spike"] for row in kept])
    with matplotlib.style.context(STYLE):
        figure = make_figure(3.3)
        axes = figure.subplots()
        axes.grid(axis="y")
        place = np.arange(len(kept))
        axes.vlines(place, 0, bits, color="#c9dcf5", linewidth=1.6)
        if np.isfinite(oracle).any():
            axes.scatter(
                place, oracle, s=22, facecolor="white", edgecolor=ORACLE, linewidth=1, label="oracle"
            )
        sessions = list(dict.fromkeys(row["session"] for row in rows))
        for name, color in zip(sessions, _cycle(len(sessions)), strict=True):
            here = [index for index, row in enumerate(kept) if row["session"] == name]
            axes.scatter(place[here], bits[here], s=22, color=color, label=f"model, {name}", zorder=3)
        if len(bits):
            low = min(0.0, float(np.quantile(bits, 0.02)))
            axes.set_ylim(
                low - 0.05, max(float(bits.max()), float(np.nanmax(oracle, initial=0))) * 1.06 + 0.02
            )
        axes.axhline(0, color="#b8c1cb", linewidth=1)
        axes.set(xlabel="unit, best first", ylabel="bits per spike", xlim=(-1, len(kept)))
        axes.legend(loc="upper right", ncols=4, handletextpad=0.2)
        return encode(figure)


def traces(
    predictions: Sequence[SessionPrediction], rows: Sequence[Mapping[str, Any]], rate_hz: float
) -> str | None:
    """Predicted and observed rates of four units, from the best to the fourth quarter, on one trial each."""
    chosen = _units_over_the_range(rows)
    if not chosen:
        return None
    with matplotlib.style.context(STYLE):
        figure = make_figure(1.75 * len(chosen))
        panels = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
        for axes, row in zip(panels, chosen, strict=True):
            prediction = next(entry for entry in predictions if entry.info.name == row["session"])
            _trace(axes, prediction, prediction.info.unit_ids.index(row["unit"]), rate_hz)
            axes.set_title(f"{row['session']} / {row['unit']}: {row['bits_per_spike']:.2f} bits per spike")
        panels[0].legend(loc="upper right", ncols=3, bbox_to_anchor=(1, 1.35))
        return encode(figure)


def _units_over_the_range(rows):
    kept = sorted(
        (row for row in rows if np.isfinite(row["bits_per_spike"])), key=lambda row: -row["bits_per_spike"]
    )
    places = np.unique((np.arange(N_TRACES) / N_TRACES * len(kept)).astype(int))
    return [kept[place] for place in places if place < len(kept)]


def _trace(axes: Axes, prediction: SessionPrediction, unit: int, rate_hz: float) -> None:
    bins = np.flatnonzero(prediction.scored[:, unit])
    trial, size = np.unique(prediction.trial[bins], return_counts=True)
    continuous = size.max() > 10
    if continuous:
        counts = [prediction.spikes[bins[prediction.trial[bins] == number], unit].sum() for number in trial]
        bins = bins[prediction.trial[bins] == trial[int(np.argmax(counts))]][: int(TRACE_S * rate_hz)]
    else:
        bins = bins[:120]
    time = (bins - bins[0]) / rate_hz if continuous else np.arange(len(bins))
    width = SMOOTHING_S * rate_hz if continuous else 0.0
    observed = _smooth(prediction.spikes[bins, unit].astype(float), width) * rate_hz
    axes.fill_between(time, observed, color=DATA, alpha=0.45, linewidth=0, label="observed")
    if prediction.true_rate is not None:
        true_rate = _smooth(prediction.true_rate[bins, unit].astype(float), width) * rate_hz
        axes.plot(time, true_rate, color=ORACLE, linewidth=1, linestyle=(0, (3, 2)), label="true rate")
    predicted = _smooth(prediction.rate[bins, unit].astype(float), width) * rate_hz
    axes.plot(time, predicted, color=MODEL, label="model")
    axes.set(ylabel="spikes/s", xlim=(time[0], max(time[-1], time[0] + 1e-3)), ylim=(0, None))
    axes.set_xlabel("time in the trial (s)" if continuous else "scored bins, in order")


def _smooth(values, width):
    if width <= 0:
        return values
    offsets = np.arange(-int(4 * width), int(4 * width) + 1)
    kernel = np.exp(-0.5 * (offsets / width) ** 2)
    weight = np.convolve(np.ones(len(values)), kernel)[len(offsets) // 2 :][: len(values)]
    return np.convolve(values, kernel)[len(offsets) // 2 :][: len(values)] / weight


def curves(panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> str | None:
    """Numbers over training: {panel: {name: [(step, value), ..]}}, one panel beside the other."""
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return None
    with matplotlib.style.context(STYLE):
        figure = make_figure(3.0)
        for axes, (title, lines) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes.grid(axis="y")
            for (name, points), color in zip(lines.items(), _cycle(len(lines)), strict=True):
                step, value = np.asarray(points, float).T
                marker = "o" if len(step) < 25 else None
                axes.plot(step, value, color=color, marker=marker, markersize=3.5, label=name)
                axes.annotate(
                    f"{value[-1]:.3g}",
                    (step[-1], value[-1]),
                    (4, 0),
                    textcoords="offset points",
                    color=color,
                    va="center",
                )
            axes.set(title=title, xlabel="step")
            axes.margins(x=0.1)
            if len(lines) > 1:
                axes.legend(loc="best")
        return encode(figure)


def filters(even: np.ndarray, odd: np.ndarray) -> str:
    """The even (upper) and odd (lower) filter of up to 24 pairs, those of the largest norm, each on its own scale."""
    n_channels, n_pairs = even.shape[2:]
    norm = np.sqrt((even**2 + odd**2).sum(axis=(0, 1, 2)))
    shown = np.sort(np.argsort(-norm)[:N_FILTERS])
    columns = 12
    rows = -(-len(shown) // columns)
    with matplotlib.style.context(STYLE):
        figure = make_figure(rows * 2.05 * WIDTH / columns)
        figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        grid = figure.subplots(2 * rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, pair in enumerate(shown):
            for phase, bank in enumerate((even, odd)):
                image = bank[..., pair].mean(axis=2) if n_channels > 1 else bank[:, :, 0, pair]
                limit = max(float(np.abs(image).max()), 1e-12)
                grid[2 * (place // columns) + phase, place % columns].imshow(
                    image, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest"
                )
        return encode(figure)


def positions(
    places: Places, predictions: Sequence[SessionPrediction], extent_deg: tuple[float, float]
) -> str:
    """Where the readouts look on the window (width, height in degrees), one panel a session with units.

    The ellipse is one standard deviation of the pooling window; a grey cross is where the counts follow the local
    energy.
    """
    shown = [index for index, prediction in enumerate(predictions) if prediction.info.unit_ids]
    width, height = extent_deg
    columns = min(len(shown), 4)
    lines = -(-len(shown) // columns)
    with matplotlib.style.context(STYLE):
        figure = make_figure((4.2 if columns < 3 else 2.9) * lines)
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
        for index, axes in zip(shown, panels, strict=False):
            prediction = predictions[index]
            axes.set_axis_on()
            color = SESSION_COLORS[index % len(SESSION_COLORS)]
            axes.add_patch(
                Rectangle((-width / 2, -height / 2), width, height, facecolor="#f6f8fa", edgecolor="#b8c1cb")
            )
            guess = np.asarray(prediction.info.position_deg)
            axes.scatter(*guess.T, marker="x", s=14, color=DATA, linewidth=1)
            for unit in range(len(prediction.info.unit_ids)):
                centre, spread = places.mean[index, unit], 2 * places.width[index, unit]
                tilt = float(np.degrees(places.angle[index, unit]))
                look = {"facecolor": "none", "edgecolor": color, "alpha": 0.35, "linewidth": 0.8}
                axes.add_patch(Ellipse(centre, *spread, angle=tilt, **look))
            axes.scatter(*places.mean[index, : len(guess)].T, s=10, color=color, zorder=3)
            axes.set(title=prediction.info.name, xlabel="degrees", ylabel="degrees", aspect="equal")
            axes.set(xlim=(-0.55 * width, 0.55 * width), ylim=(-0.55 * height, 0.55 * height))
            axes.locator_params(nbins=5)
        return encode(figure)


def saccades(average: Mapping[str, np.ndarray]) -> str:
    """The rate around saccades as a multiple of its mean: data with two standard errors, model, oracle."""
    time, data, error = average["time_ms"], average["data"], average["error"]
    with matplotlib.style.context(STYLE):
        figure = make_figure(3.2)
        axes = figure.subplots()
        axes.grid(axis="y")
        axes.axvline(0, color="#b8c1cb", linewidth=1)
        axes.fill_between(time, data - 2 * error, data + 2 * error, color=DATA, alpha=0.35, linewidth=0)
        axes.plot(time, data, color=MUTED, label="data")
        if "oracle" in average:
            axes.plot(
                time, average["oracle"], color=ORACLE, linewidth=1, linestyle=(0, (3, 2)), label="true rate"
            )
        axes.plot(time, average["model"], color=MODEL, label="model")
        axes.set(
            xlabel="time from the onset of the saccade (ms)",
            ylabel="rate / mean rate",
            xlim=(time[0], time[-1]),
        )
        axes.legend(loc="best")
        return encode(figure)


def _cycle(number: int) -> list[str]:
    return [SESSION_COLORS[index % len(SESSION_COLORS)] for index in range(number)]
