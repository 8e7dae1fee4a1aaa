"""The written report: its numbers, its files, its page in a browser."""

import base64
import csv
import dataclasses
import io
import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

import polarjax.data
from polarjax import systems
from polarjax.core import CheckpointError, DataError
from polarjax.reports import evaluate, table

from .fabricated import save_checkpoint, tiny_system

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browse(page: pathlib.Path, profile: pathlib.Path, *options: str) -> str:
    """Opens a page in headless Chromium and returns what it prints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, f"none of {', '.join(BROWSERS)} is installed; `apt-get install -y chromium` installs one"
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
    command = [browser, *fixed, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def written(tiny_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "build", tiny_system)
        return tiny_run, evaluate.write_report(tiny_run.path)


def test_constants_of_a_run_that_started_from_another_start_where_that_one_ended(
    tmp_path, tiny_run, use_tiny_system, monkeypatch
):
    source = {"path": "runs/a", "step": 5, "constants": {"temporal/tau_fix_ms": 91.5}}
    monkeypatch.setattr(systems, "starting_constants", lambda config, info: {"temporal/tau_fix_ms": 200.0})
    for name, given, start in (("warm", source, 91.5), ("cold", None, 200.0)):
        folder = tmp_path / name
        save_checkpoint(folder, tiny_run.config, tiny_run.data.info, tiny_run.params, source=given)
        report = evaluate.write_report(folder)
        assert report["constants_start"] == {"temporal/tau_fix_ms": start}
        assert report["constants"]["temporal/tau_fix_ms"] == pytest.approx(104.2)


def test_the_report_has_the_documented_fields(written):
    run, report = written
    folder = run.path / "eval" / "30"
    assert report == json.loads((folder / "report.json").read_text())
    assert report["checkpoint_step"] == 30
    assert report["checkpoint_chosen_by"] == "eval/bits_per_spike"
    assert report["tier"] == "test"
    assert report["units"] == 70
    bits = report["bits_per_spike"]
    assert bits["interval"][0] < bits["mean"] < bits["interval"][1]
    assert bits["null"] == "train"
    assert math.isclose(
        report["oracle_fraction"], bits["mean"] / report["oracle_bits_per_spike"]["mean"], rel_tol=1e-6
    )
    assert {"mean", "median", "with_trial_mean"} <= set(report["correlation"])
    assert report["correlation"]["with_trial_mean"]["units"] > 0
    assert report["constants"]["temporal/tau_fix_ms"] == pytest.approx(104.2)
    assert [entry["session"] for entry in report["sessions"]] == ["virtual-a", "virtual-b"]
    assert report["units_left_out"] == [
        entry for entry in report["units_left_out"] if entry["why"] == "no spikes"
    ]


def test_the_linear_nonlinear_run_is_evaluated_on_the_same_trials(written):
    run, report = written
    inner = json.loads((run.path / "linear_nonlinear" / "eval" / "20" / "report.json").read_text())
    assert report["linear_nonlinear"]["mean"] == inner["bits_per_spike"]["mean"]
    assert inner["linear_nonlinear"] is None
    assert inner["spikes"] == report["spikes"]


def test_the_table_of_units_holds_one_line_a_unit(written):
    run, report = written
    with (run.path / "eval" / "30" / "units.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == report["units"]
    bits = [float(row["bits_per_spike"]) for row in rows if row["bits_per_spike"]]
    assert np.mean(bits) == pytest.approx(report["bits_per_spike"]["mean"])
    assert rows[0]["session"] == "virtual-a"


def test_without_a_step_the_best_of_validation_is_evaluated_and_the_page_says_so(
    tmp_path, tiny_run, use_tiny_system
):
    folder = tmp_path / "run"
    save_checkpoint(folder, tiny_run.config, tiny_run.data.info, tiny_run.params, rise=-0.1)
    best, latest = evaluate.write_report(folder), evaluate.write_report(folder, "latest")
    assert (best["checkpoint_step"], best["checkpoint_chosen_by"]) == (10, "eval/bits_per_spike")
    assert (latest["checkpoint_step"], latest["checkpoint_chosen_by"]) == (30, "latest")
    assert "checkpoint 10, best eval/bits_per_spike" in (folder / "eval/10/report.html").read_text()
    assert "checkpoint 30, the latest" in (folder / "eval/30/report.html").read_text()


def test_another_tier_or_step_does_not_overwrite_the_report(written, use_tiny_system):
    run, report = written
    validation = evaluate.write_report(run.path, 10, tier=1)
    assert validation["tier"] == "validation"
    assert validation["checkpoint_step"] == 10
    assert validation["checkpoint_chosen_by"] == "step"
    assert json.loads((run.path / "eval" / "30" / "report.json").read_text()) == report
    assert (run.path / "eval" / "10" / "validation" / "report.html").exists()
    assert not (run.path / "eval" / "10" / "report.json").exists()


def test_the_page_opens_in_a_browser_with_its_headline_and_all_its_images(written, tmp_path):
    run, report = written
    page = run.path / "eval" / "30" / "report.html"
    text = page.read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text) == []
    probe = tmp_path / "probe.html"
    script = (
        "<script>document.body.insertAdjacentHTML('beforeend', '<p id=widths>' + "
        "[...document.images].map(image => image.naturalWidth).join(',') + '</p>')</script>"
    )
    probe.write_text(text.replace("</body>", script + "</body>"))
    shown = browse(probe, tmp_path / "profile", "--dump-dom")
    mean = f"{report['bits_per_spike']['mean']:.2f}"
    assert f"On the test trials the model explains {mean} bits per spike, " in shown
    assert "Amplitude memory: 104 ms in fixation, 26 ms in saccades." in shown
    widths = [int(width) for width in re.search(r'id="widths">([\d,]+)<', shown).group(1).split(",")]
    assert len(widths) == 7
    assert min(widths) > 300


def test_every_figure_shows_something(written):
    run, _ = written
    text = (run.path / "eval" / "30" / "report.html").read_text()
    for encoded, title in re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text):
        pixels = imread(io.BytesIO(base64.b64decode(encoded)), format="png")[..., :3]
        assert (pixels < 0.9).mean() > 0.005, title


def test_the_page_is_drawn_and_not_blank(written, tmp_path):
    run, _ = written
    picture = tmp_path / "page.png"
    page = run.path / "eval" / "30" / "report.html"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1100,1600")
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (1600, 1100, 3)
    assert pixels.std() > 0.05
    blue = (pixels[..., 2] - pixels[..., 0] > 0.3).mean()
    assert blue > 0.001


def test_the_printed_table_names_model_floor_and_ceiling(written):
    _, report = written
    stream = io.StringIO()
    table.print_table(report, Console(width=80, file=stream))
    text = stream.getvalue()
    for name in ("model", "linear-nonlinear", "oracle"):
        assert name in text
    assert f"{report['bits_per_spike']['mean']:.3f}" in text
    assert "relaxation in fixation: 9.6/s, memory 104 ms (at the start –)" in text


def test_a_work_directory_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent does not exist.*train\.py --workdir"):
        evaluate.write_report(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        evaluate.write_report(tmp_path)


def test_a_step_that_is_missing_lists_those_there_are(tiny_workdir):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has 10, 30"):
        evaluate.write_report(tiny_workdir.path, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "moved"},
            r"was trained on sessions \['moved', 'virtual-b'\], found \['virtual-a', 'virtual-b'\]",
        ),
        (
            {"unit_ids": ("x",)},
            r"session virtual-a \(embedded\) has 40 units, the checkpoint was trained on 1",
        ),
        ({"fingerprint": "0" * 64}, r"holds other arrays than the checkpoint was trained on"),
    ],
)
def test_other_data_than_those_of_the_checkpoint_are_refused(tmp_path, tiny_workdir, change, message):
    info = tiny_workdir.data.info
    first = dataclasses.replace(info.sessions[0], **change)
    changed = dataclasses.replace(info, sessions=(first, *info.sessions[1:]))
    save_checkpoint(tmp_path / "other", tiny_workdir.config, changed, tiny_workdir.params)
    with pytest.raises(DataError, match=message):
        evaluate.write_report(tmp_path / "other")


def test_a_report_that_cannot_be_written_says_where(tiny_workdir):
    (tiny_workdir.path / "eval").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write the report to .*eval/30"):
        evaluate.write_report(tiny_workdir.path)


def test_the_data_are_closed_after_an_error(tiny_workdir, monkeypatch):
    closed = []
    data = tiny_workdir.data._replace(close=lambda: closed.append(True))
    monkeypatch.setattr(polarjax.data, "build", lambda section, whole: data)
    monkeypatch.setattr(evaluate, "predict_sessions", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate.write_report(tiny_workdir.path)
    assert closed == [True]
