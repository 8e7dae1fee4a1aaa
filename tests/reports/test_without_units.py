"""A run whose sessions have no units: its report leaves out what needs them, and says so."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from polarjax import data as data_module
from polarjax import systems
from polarjax.core import DataError
from polarjax.reports import evaluate, figures, numbers, pair, study_results, table
from polarjax.reports.parameters import Places

from .fabricated import save_checkpoint, tiny_params, tiny_system
from .test_numbers import made_prediction


def unable_system(config, info):
    """A tiny system that must not be asked for rates."""
    return tiny_system(config, info)._replace(predict=lambda *_: pytest.fail("no unit has a rate"))


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_config):
    """A run of sessions without units and its report."""
    folder = tmp_path_factory.mktemp("runs") / "silent"
    config = tiny_config.copy_and_resolve_references()
    config.data.ignore_spikes = True
    data = data_module.build(config.data)
    save_checkpoint(folder, config, data.info, tiny_params(data.info))
    data.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "build", unable_system)
        return folder, evaluate.write_report(folder)


@pytest.fixture(scope="module")
def recorded(tiny_run):
    """The folder and the fields of the report of a run with units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "build", tiny_system)
        return tiny_run.path / "eval/30", evaluate.write_report(tiny_run.path)


def test_its_report_has_every_field_and_no_number_of_spikes(written, recorded):
    folder, report = written
    assert report == json.loads((folder / "eval/30/report.json").read_text())
    assert report.keys() == recorded[1].keys()
    assert (report["units"], report["spikes"], report["bits_per_spike"]["mean"]) == (0, 0, None)
    assert [(entry["session"], entry["units"]) for entry in report["sessions"]] == [
        ("virtual-a", 0),
        ("virtual-b", 0),
    ]


def test_its_table_of_units_has_the_header_of_any_other_and_no_row(written, recorded):
    own, other = (
        list(csv.reader((folder / "units.csv").read_text().splitlines()))
        for folder in (written[0] / "eval/30", recorded[0])
    )
    assert own == other[:1]


def test_its_page_shows_filters_and_training_and_nothing_of_units(written):
    text = (written[0] / "eval/30/report.html").read_text()
    for title in ("Time constants", "Learned filters", "Learning curve"):
        assert f"<h2>{title}</h2>" in text
    for title in (
        "Where the units look",
        "Rates around saccades",
        "Sessions",
        "Bits per spike of every unit",
    ):
        assert f"<h2>{title}</h2>" not in text
    assert "No session has units: nothing is said of spikes. Amplitude memory: 104 ms in fixation" in text
    assert "2 sessions: no units" in text


def test_its_printed_table_is_a_title_and_the_constants(written):
    stream = io.StringIO()
    table.print_table(written[1], Console(width=80, file=stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "test trials, no units; checkpoint 30, best eval/bits_per_spike"
    assert lines[1].startswith("relaxation in fixation: 9.6/s")
    assert "bits per spike" not in "".join(lines[1:])


def test_a_study_reads_it_as_a_run_without_bits_per_spike(written):
    report = written[0] / "eval/30"
    result = study_results.read_result("pretrained", 0, report, (30, 1.0, 2.0))
    assert (result.row["bits_per_spike"], result.units, result.floor) == (None, {}, None)
    assert study_results.mean_of_report(report) is None


def test_two_runs_without_units_are_not_compared_and_the_message_says_why(written, tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "build", unable_system)
    other = tmp_path / "other"
    config, info = (getattr(evaluate.open_run(written[0]), name) for name in ("config", "info"))
    save_checkpoint(other, config, info, tiny_params(info))
    with pytest.raises(DataError, match=r"has units \(virtual-a, virtual-b\).*trained with spikes"):
        pair.compare_runs(written[0], other, tmp_path / "out")


def test_a_session_without_units_beside_others_is_a_summary_and_no_rows_and_no_panel():
    recorded = made_prediction()
    info = dataclasses.replace(recorded.info, name="silent", unit_ids=(), mean_count=(), position_deg=())
    nothing = np.zeros((600, 0))
    alone = dataclasses.replace(recorded, info=info, rate=nothing, spikes=nothing, scored=nothing > 0)
    rows = numbers.unit_rows([alone, recorded], 100.0)
    assert [row["session"] for row in rows] == ["one", "one"]
    assert all(tuple(row) == numbers.COLUMNS for row in rows)
    assert [entry["units"] for entry in numbers.summarize_sessions(rows, ["silent", "one"])] == [0, 2]
    places = Places(np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.1), np.zeros((2, 2)))
    both = figures.positions(places, [alone, recorded], (1.0, 1.0))
    second = Places(*(values[1:] for values in places))
    assert len(both) > 1000
    assert figures.positions(second, [recorded], (1.0, 1.0)).startswith("data:image/png")
