"""Entries that start from another one, and entries that are mere preparations: they have no bits per spike."""

import csv
import json

import pytest

from polarjax.core import ConfigError
from polarjax.reports import table

from .conftest import POLAR
from .test_conduct import SLOW, starts

PRE = ("pre", POLAR, {"optim.clip_norm": 2.0})
FINE = ("fine", POLAR, {"model.kwargs.fixation_rate": 8.0}, {"init_from": "pre"})


def test_a_run_starts_from_that_of_the_same_seed_which_is_trained_first(make_study, tmp_path, capsys):
    summary = make_study([FINE, SLOW, PRE])()
    assert summary["failures"] == []
    for seed in (0, 1):
        config = json.loads((tmp_path / f"study/fine/seed{seed}/config.json").read_text())
        assert config["init_from"] == str(tmp_path / f"study/pre/seed{seed}")
        assert json.loads((tmp_path / f"study/slow/seed{seed}/config.json").read_text())["init_from"] == ""
    printed = capsys.readouterr().out
    assert "[1/6] slow, seed 0: 0.600" in printed and "[2/6] pre, seed 0: no bits per spike, " in printed
    assert summary["entries"][0]["config"] == f"{POLAR}, starts from pre"
    make_study([FINE, SLOW, PRE])()
    assert set(starts(tmp_path / "study").values()) == {1}


def test_a_preparation_is_listed_with_what_it_cost_and_stands_in_no_comparison(make_study, tmp_path):
    summary = make_study([SLOW, PRE, FINE])()
    slow, pre, fine = summary["entries"]
    assert pre["bits_per_spike"] == {"mean": None, "interval": None, "each": []}
    assert pre["difference"] is None
    assert (pre["seeds"], pre["num_steps"], pre["parameters"]) == ([0, 1], [600, 600], 1234)
    assert pre["training_seconds"] == pytest.approx(slow["training_seconds"])
    assert fine["difference"]["mean"] == pytest.approx(0.3)
    assert (summary["missing"], summary["failures"]) == ([], [])
    page = (tmp_path / "study/study.html").read_text()
    assert "fine explains most, 0.905 bits per spike" in page
    assert "Without bits per spike, and in no comparison: pre." in page
    assert page.count("<td>pre</td>") == 1
    units = list(csv.DictReader((tmp_path / "study/units.csv").read_text().splitlines()))
    assert set(units[0]) == {
        "session",
        "unit",
        "spikes",
        "oracle_bits_per_spike",
        "slow",
        "fine",
        "fine - slow",
    }
    assert {row["spikes"] for row in units} == {"50.0"}
    rows = list(csv.DictReader((tmp_path / "study/study.csv").read_text().splitlines()))
    assert [row["bits_per_spike"] for row in rows if row["entry"] == "pre"] == ["", ""]
    table.print_study(summary)


def test_a_study_of_preparations_alone_is_reported(make_study, tmp_path):
    summary = make_study([PRE], REFERENCE="pre")()
    assert summary["entries"][0]["seeds"] == [0, 1]
    assert "No finished run has bits per spike." in (tmp_path / "study/study.html").read_text()
    assert not (tmp_path / "study/units.csv").exists()


def test_a_reference_without_bits_per_spike_is_told(make_study, tmp_path):
    make_study([PRE, SLOW], REFERENCE="pre")(seeds="1")
    page = (tmp_path / "study/study.html").read_text()
    assert "pre, the reference, has no bits per spike: nothing is compared with it." in page


def test_an_entry_whose_source_failed_is_not_trained(make_study, tmp_path):
    broken = ("pre", POLAR, {"optim.clip_norm": 7.0})
    summary = make_study([SLOW, broken, FINE])(seeds="1")
    assert [failure["entry"] for failure in summary["failures"]] == ["pre", "fine"]
    assert summary["failures"][1]["error"] == "it starts from pre with seed 0, which has not been trained"
    assert starts(tmp_path / "study") == {"pre/seed0": 1, "slow/seed0": 1}


def test_a_source_that_is_left_out_and_not_trained_is_answered_before_anything_is_trained(
    make_study, tmp_path
):
    run = make_study([SLOW, PRE, FINE])
    message = (
        r"'fine' starts from 'pre', which --only leaves out and .* with seed 0, 1; .* --only slow,pre,fine"
    )
    with pytest.raises(ConfigError, match=message):
        run(only="slow,fine")
    assert starts(tmp_path) == {}
    run(only="pre")
    assert run(only="fine")["failures"] == []
    assert starts(tmp_path / "study") == {"fine/seed0": 1, "fine/seed1": 1, "pre/seed0": 1, "pre/seed1": 1}


def test_an_entry_may_start_from_one_and_last_as_long_as_another(make_study, tmp_path):
    timed = ("timed", POLAR, {"optim.eps": 0.5e-8}, {"init_from": "pre", "as_long_as": "slow"})
    summary = make_study([timed, SLOW, PRE])(seeds="1")
    assert summary["failures"] == []
    assert summary["entries"][0]["num_steps"] == [1200]
    for folder in ("timed/seed0", "timed/seed0/calibration"):
        config = json.loads((tmp_path / "study" / folder / "config.json").read_text())
        assert config["init_from"] == str(tmp_path / "study/pre/seed0")
