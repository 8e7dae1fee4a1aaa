"""What a study says of its runs, each number against a second way to compute it."""

import base64
import csv
import io
import json
import math
import re

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from polarjax.reports import study, study_figures, study_page, table

from .fabricated_study import GAINS, SEEDS, make_question, make_results


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    failures = [{"entry": "minimal", "seed": 7, "error": "exit code 3: no sessions"}]
    return folder, study.write_study(make_question(), make_results(), failures, folder)


def entry_of(summary, name):
    return next(entry for entry in summary["entries"] if entry["name"] == name)


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_means_and_intervals_are_those_over_seeds(written):
    folder, summary = written
    rows = read_csv(folder / "study.csv")
    assert len(rows) == len(GAINS) * len(SEEDS)
    for name in GAINS:
        bits = [float(row["bits_per_spike"]) for row in rows if row["entry"] == name]
        found = entry_of(summary, name)["bits_per_spike"]
        assert found["mean"] == pytest.approx(np.mean(bits))
        assert found["interval"] == pytest.approx(stats.t.interval(0.95, 2, np.mean(bits), stats.sem(bits)))
    assert summary == json.loads((folder / "study.json").read_text())


def test_the_difference_is_that_of_the_same_units_and_seeds(written):
    folder, summary = written
    rows = read_csv(folder / "units.csv")
    assert len(rows) == 40
    differences = [float(row["reference - polar"]) for row in rows if row["reference - polar"]]
    found = entry_of(summary, "reference")["difference"]
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert found["units"] == len(differences) == 39
    assert found["units_better"] == sum(value > 0 for value in differences)
    drawn = np.random.default_rng(5).choice(differences, (4000, 39)).mean(axis=1)
    assert found["interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2e-3)
    assert entry_of(summary, "polar")["difference"] is None


def test_an_entry_with_other_seeds_than_the_reference_is_compared_on_those_they_share():
    results = [
        result for result in make_results() if result.row["entry"] != "polar" or result.row["seed"] > 0
    ]
    summary = study.summarize_study(make_question(), results, [])
    assert entry_of(summary, "minimal")["difference"]["seeds"] == [1, 2]
    alone = [result for result in results if result.row["entry"] != "polar"]
    assert entry_of(study.summarize_study(make_question(), alone, []), "minimal")["difference"] is None


def test_constants_have_their_start_and_their_end(written):
    _, summary = written
    found = entry_of(summary, "polar")["constants"]
    assert list(found) == ["tau_fix_ms", "tau_sac_ms"]
    assert found["tau_fix_ms"]["start"] == 200.0
    assert found["tau_fix_ms"]["mean"] == pytest.approx(np.mean(found["tau_fix_ms"]["each"]))
    assert entry_of(summary, "minimal")["constants"] == {}


def test_constants_that_are_frozen_are_drawn_where_they_are(written):
    _, summary = written
    still = {"start": 200.0, "mean": 200.0, "interval": [200.0, 200.0], "each": [200.0] * 3}
    entries = [{**entry_of(summary, "polar"), "constants": {"tau_fix_ms": still}}]
    assert study_figures.constants({**summary, "entries": entries}, {}).startswith("data:image/png")
    assert study_figures.constants({**summary, "entries": []}, {}) is None


def test_starting_constants_are_the_memories_of_the_options():
    starts = study.starting_constants({"fixation_rate": 5.0, "alpha_fast": 0.8}, 120.0)
    assert starts == pytest.approx({"tau_fix_ms": 200.0, "tau_fast_ms": 1e3 / 120 / math.log(1.25)})


def test_the_page_has_its_headline_its_figures_and_what_failed(written):
    folder, _ = written
    text = (folder / "study.html").read_text()
    assert "polar explains most, 0.683 bits per spike, 72 % of the oracle." in text
    assert "linear_nonlinear are worse than polar." in text
    assert "minimal, seed 7: exit code 3: no sessions" in text
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text) == []
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 2
    for encoded in images:
        pixels = imread(io.BytesIO(base64.b64decode(encoded)), format="png")[..., :3]
        assert (pixels < 0.9).mean() > 0.005


def test_a_study_without_a_finished_run_has_a_page_that_says_so(tmp_path):
    summary = study.write_study(make_question(), [], [], tmp_path)
    assert summary["oracle"] is None
    assert "No run has finished yet." in (tmp_path / "study.html").read_text()
    assert not (tmp_path / "study.csv").exists()


def test_one_seed_has_no_interval_and_is_still_drawn(tmp_path):
    summary = study.write_study(make_question(seeds=(0,)), make_results(seeds=(0,)), [], tmp_path)
    assert entry_of(summary, "polar")["bits_per_spike"]["interval"] is None
    assert entry_of(summary, "minimal")["difference"]["interval"] is not None


def test_the_printed_table_has_a_row_an_entry(written):
    folder, summary = written
    stream = io.StringIO()
    table.print_study(summary, Console(width=120, file=stream))
    text = stream.getvalue()
    for name in GAINS:
        assert re.search(rf"^ +{name} +0\.\d{{3}}", text, re.MULTILINE)
    assert "failed: minimal, seed 7: exit code 3" in text
    assert text.endswith(f"report: {folder}/study.html\n")


def test_durations_and_steps_are_told_briefly():
    assert [study_page.seconds(value) for value in (None, 1.25, 59.6, 3600.0)] == [
        "–",
        "1.2 s",
        "60 s",
        "60 min",
    ]
    assert [study_page.steps(value) for value in ([], [600, 600], [600, 1200])] == [
        "–",
        "600",
        "600 to 1,200",
    ]
