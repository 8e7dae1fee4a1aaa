"""Two runs unit by unit: the numbers are those of their reports, and what is gained is sure."""

import base64
import csv
import dataclasses
import io
import itertools
import json
import math
import pathlib
import re

import numpy as np
import pytest
from matplotlib.image import imread

from polarjax import systems
from polarjax.core import CheckpointError, DataError
from polarjax.reports import evaluate, pair, pair_page

from .fabricated import save_checkpoint, tiny_system


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_config, tiny_data, tiny_run):
    """A run of constant rates against one whose rates follow the contrast, the second evaluated before."""
    folder = tmp_path_factory.mktemp("pair")
    flat = tiny_run.params | {"gain": np.zeros((), np.float32)}
    save_checkpoint(folder / "flat/seed0", tiny_config, tiny_data.info, flat)
    save_checkpoint(folder / "rich/seed0", tiny_config, tiny_data.info, tiny_run.params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "build", tiny_system)
        evaluate.write_report(folder / "rich/seed0")
        summary = pair.compare_runs(folder / "flat/seed0", folder / "rich/seed0", folder / "out")
    return folder, summary


def read_units(path):
    return {(row["session"], row["unit"]): row for row in csv.DictReader(path.read_text().splitlines())}


def test_bits_per_spike_are_those_of_the_two_reports(compared):
    folder, summary = compared
    reports = [
        json.loads((folder / name / "seed0/eval/30/report.json").read_text()) for name in ("flat", "rich")
    ]
    for name, report in zip(("first", "second"), reports, strict=True):
        assert summary[name] == pytest.approx(report["bits_per_spike"]["mean"])
    assert summary["difference"] == pytest.approx(summary["second"] - summary["first"])
    assert [run["name"] for run in summary["runs"]] == ["flat/seed0", "rich/seed0"]
    rows = read_units(folder / "out/units.csv")
    rich = read_units(folder / "rich/seed0/eval/30/units.csv")
    assert rows.keys() == rich.keys()
    left_out = sum(not row["bits_per_spike"] for row in rich.values())
    assert (summary["units"], summary["units_left_out"]) == (len(rows) - left_out, left_out)
    for unit, row in rows.items():
        if row["second"]:
            assert float(row["second"]) == pytest.approx(float(rich[unit]["bits_per_spike"]))


def test_units_are_gained_where_their_interval_over_trials_lies_above_zero(compared):
    folder, summary = compared
    assert summary == json.loads((folder / "out/pair.json").read_text())
    rows = read_units(folder / "out/units.csv").values()
    verdicts = [row["verdict"] for row in rows]
    assert (verdicts.count("gained"), verdicts.count("lost")) == (summary["gained"], summary["lost"])
    assert summary["gained"] > 0
    for row in rows:
        if row["verdict"] == "gained":
            assert 0 < float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        elif row["verdict"] == "open" and row["low"]:
            assert float(row["low"]) <= 0 <= float(row["high"])
    assert summary["interval"][0] < summary["difference"] < summary["interval"][1]


def test_the_page_says_who_gains_and_shows_it(compared):
    folder, summary = compared
    text = (folder / "out/pair.html").read_text()
    assert f"It gains {summary['gained']} of them and loses {summary['lost']}." in text
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    pixels = imread(io.BytesIO(base64.b64decode(encoded)), format="png")[..., :3]
    assert (pixels < 0.9).mean() > 0.005


def test_every_pair_of_runs_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [
        "runs/studies/v1/polar/seed0", "runs/studies/v1/minimal/seed0", "runs/studies/v2/polar/seed0",
        "runs/studies/v2/minimal/seed0", "runs/a", "runs/a/linear_nonlinear", f"{tmp_path}/elsewhere/polar/seed0",
    ]  # fmt: skip
    folders = {pair.pair_folder(*two) for two in itertools.permutations(runs, 2)}
    assert len(folders) == len(runs) * (len(runs) - 1)
    assert pair.pair_folder(*runs[:2]) == pathlib.Path("runs/pairs/studies/v1/polar-seed0,minimal-seed0")
    assert pair.pair_folder(*runs[4:6]) == pathlib.Path("runs/pairs/a,a-linear_nonlinear")
    assert pair.pair_folder(f"{tmp_path}/{runs[0]}", runs[1]) == pair.pair_folder(*runs[:2])
    assert pair.pair_folder(*runs[:2], "out") == pathlib.Path("out")


def test_a_pair_without_intervals_is_open_and_told():
    rows = [{"session": "a", "unit": "x", "groups": 3, "spikes": 9.0, "first": 0.1, "second": 0.3, "difference": 0.2,
             "low": math.nan, "high": math.nan, "verdict": pair._verdict(math.nan, math.nan)}]  # fmt: skip
    summary = pair.summarize_pair(rows)
    assert (summary["interval"], summary["gained"], summary["lost"]) == (None, 0, 0)
    described = [{"name": name, "checkpoint_step": 30, "checkpoint_chosen_by": "latest"} for name in "ab"]
    text = pair_page.pair_html(summary | {"runs": described, "tier": "test"}, rows)
    assert "b explains +0.200 bits per spike against a, of one unit. It gains 0 of them" in text
    assert "<td>+0.200</td><td>–</td><td>3</td>" in text


def test_runs_that_cannot_be_compared_are_refused(compared, tmp_path, tiny_config, tiny_data, tiny_run):
    folder, _ = compared
    with pytest.raises(CheckpointError, match="names .* twice; expected two runs"):
        pair.compare_runs(folder / "flat/seed0", folder / "flat/seed0")
    info = tiny_data.info
    for change, message in (
        ({"name": "moved-{}"}, "no session in common"),
        ({"fingerprint": "0" * 64}, "session virtual-a of .* holds other units or arrays than that of"),
    ):
        sessions = tuple(
            dataclasses.replace(session, **{key: value.format(place) for key, value in change.items()})
            for place, session in enumerate(info.sessions)
        )
        other = tmp_path / next(iter(change))
        save_checkpoint(other, tiny_config, dataclasses.replace(info, sessions=sessions), tiny_run.params)
        with pytest.raises(DataError, match=message):
            pair.compare_runs(folder / "flat/seed0", other)
