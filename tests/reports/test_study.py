"""What a study says of its runs, each number against a second way to compute it."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from polarjax.reports import study, study_figures, study_page, table

from .fabricated_study import GAINS, SEEDS, make_question, make_results


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
    assert found["over_units"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2e-3)
    assert entry_of(summary, "polar")["difference"] is None


def test_the_interval_over_seeds_is_a_paired_t_test_of_the_runs(written):
    folder, summary = written
    rows = read_csv(folder / "study.csv")
    bits = {
        name: [float(row["bits_per_spike"]) for row in rows if row["entry"] == name]
        for name in ("minimal", "polar")
    }
    found = entry_of(summary, "minimal")["difference"]
    interval = stats.ttest_rel(bits["minimal"], bits["polar"]).confidence_interval(0.95)
    assert found["over_seeds"] == pytest.approx(interval)
    assert [float(row["difference"]) for row in rows if row["entry"] == "minimal"] == pytest.approx(
        found["each"]
    )
    assert found["each"] == pytest.approx(np.subtract(bits["minimal"], bits["polar"]))
    assert not any(row["difference"] for row in rows if row["entry"] == "polar")
    lines = {row["entry"]: row for row in read_csv(folder / "entries.csv")}
    assert list(lines) == list(GAINS)
    for name in ("over_units", "over_seeds"):
        bounds = [float(lines["minimal"][f"difference_{name}_{end}"]) for end in ("low", "high")]
        assert bounds == pytest.approx(found[name])
    assert lines["linear_nonlinear"]["verdict"] == "worse"
    assert lines["polar"]["verdict"] == ""


def test_an_entry_is_compared_with_its_own_reference_where_it_has_one(tmp_path):
    question = make_question(references={"minimal_time": "minimal", "linear_nonlinear": "minimal"})
    summary = study.write_study(question, make_results(), [], tmp_path)
    assert [entry["reference"] for entry in summary["entries"]] == [
        None,
        "polar",
        "polar",
        "minimal",
        "minimal",
    ]
    own, other = ({e["name"]: e for e in s["entries"]} for s in (summary, study.summarize_study(
        make_question(), make_results(), [])))  # fmt: skip
    assert own["reference"]["difference"] == other["reference"]["difference"]
    expected = other["minimal_time"]["difference"]["mean"] - other["minimal"]["difference"]["mean"]
    assert own["minimal_time"]["difference"]["mean"] == pytest.approx(expected)
    rows = read_csv(tmp_path / "units.csv")
    found = [float(row["minimal_time - minimal"]) for row in rows if row["minimal_time - minimal"]]
    assert np.mean(found) == pytest.approx(expected)
    lines = {row["entry"]: row["reference"] for row in read_csv(tmp_path / "entries.csv")}
    assert (lines["polar"], lines["minimal"], lines["minimal_time"]) == ("", "polar", "minimal")
    page = (tmp_path / "study.html").read_text()
    assert "linear_nonlinear is worse than minimal." in page
    assert "Differences are to polar; minimal_time, linear_nonlinear: to minimal." in page
    stream = io.StringIO()
    table.print_study(summary, Console(width=120, file=stream))
    assert "differences of minimal_time, linear_nonlinear: to minimal\n" in stream.getvalue()


def test_the_correlation_with_the_trial_mean_is_told_with_its_interval_where_trials_repeat(tmp_path):
    results = make_results()
    for result in results:
        result.row["trial_mean_correlation_median"] = 0.5 + result.row["seed"] / 10
    summary = study.write_study(make_question(), results, [], tmp_path)
    found = entry_of(summary, "polar")["trial_mean_correlation_median"]
    assert found["each"] == [0.5, 0.6, 0.7]
    assert found["interval"] == pytest.approx(stats.t.interval(0.95, 2, 0.6, stats.sem(found["each"])))
    line = next(row for row in read_csv(tmp_path / "entries.csv") if row["entry"] == "polar")
    assert float(line["trial_mean_correlation_median_low"]) == pytest.approx(found["interval"][0])
    stream = io.StringIO()
    table.print_study(summary, Console(width=200, file=stream))
    page, printed = (tmp_path / "study.html").read_text(), stream.getvalue()
    assert "with trial mean" in page and "0.352 to 0.848" in page
    assert "mean, 95 %" in printed and "0.352 to 0.848" in printed
    for result in results:
        result.row["trial_mean_correlation_median"] = None
    study.write_study(make_question(), results, [], tmp_path)
    assert "with trial mean" not in (tmp_path / "study.html").read_text()


def test_the_constants_of_a_framewise_entry_are_said_to_be_no_memory(written):
    text = (written[0] / "study.html").read_text()
    assert " reference: no amplitude remembers the frame before, tau is 1/rate alone." in text


def test_a_side_is_taken_only_where_units_and_seeds_agree(tmp_path):
    results = [result for result in make_results() if result.row["entry"] in ("polar", "linear_nonlinear")]
    lucky = []
    for result, luck in zip(results[-3:], (0.3, -0.1, 0.7), strict=True):
        units = {unit: (bits[0] + luck, *bits[1:]) for unit, bits in result.units.items()}
        lucky.append(result._replace(units=units, row=result.row | {"entry": "reference"}))
    names = ("polar", "linear_nonlinear", "reference")
    asked = make_question(entries=dict.fromkeys(names, "configs/polar.py"))
    summary = study.write_study(asked, results + lucky, [], tmp_path)
    verdicts = [entry_of(summary, name)["difference"]["verdict"] for name in names[1:]]
    assert verdicts == ["worse", "open"]
    assert entry_of(summary, "reference")["difference"]["over_units"][1] < 0
    assert "linear_nonlinear is worse than polar." in study_page.headline(summary)
    asked = make_question(entries=dict.fromkeys(("polar", "reference"), "configs/polar.py"))
    text = study_page.headline(study.summarize_study(asked, results + lucky, []))
    assert text.endswith(" None differs from polar by more than units and seeds scatter.")


def test_an_entry_with_other_seeds_than_the_reference_is_compared_on_those_they_share():
    results = [
        result for result in make_results() if result.row["entry"] != "polar" or result.row["seed"] > 0
    ]
    summary = study.summarize_study(make_question(), results, [])
    assert entry_of(summary, "minimal")["difference"]["seeds"] == [1, 2]
    alone = [result for result in results if result.row["entry"] != "polar"]
    summary = study.summarize_study(make_question(), alone, [])
    assert entry_of(summary, "minimal")["difference"] is None
    assert "polar, the reference, has no finished run: nothing is compared with it." in study_page.headline(
        summary
    )


def test_a_missing_run_moves_neither_the_differences_of_the_units_nor_that_of_their_mean(tmp_path):
    """A run of the reference that is missing must not be replaced by the average of its other seeds."""
    results = []
    for result in make_results():
        shift = 5.0 * result.row["seed"]
        units = {unit: (bits[0] + shift, *bits[1:]) for unit, bits in result.units.items()}
        results.append(result._replace(units=units))
    kept = [result for result in results if (result.row["entry"], result.row["seed"]) != ("polar", 0)]
    summary = study.write_study(make_question(), kept, [], tmp_path)
    differences = [float(row["minimal - polar"] or "nan") for row in read_csv(tmp_path / "units.csv")]
    runs = {(result.row["entry"], result.row["seed"]): result.units for result in kept}
    expected = [
        np.mean(
            [runs["minimal", seed]["a", str(n)][0] - runs["polar", seed]["a", str(n)][0] for seed in (1, 2)]
        )
        for n in range(40)
    ]
    np.testing.assert_allclose(differences, expected)
    assert entry_of(summary, "minimal")["difference"]["mean"] == pytest.approx(np.nanmean(differences))
    rows = [row for row in read_csv(tmp_path / "study.csv") if row["entry"] == "minimal"]
    assert [row["difference"] == "" for row in rows] == [True, False, False]


def test_what_is_not_trained_yet_is_named(tmp_path):
    some = [
        result
        for result in make_results()
        if result.row["entry"] in ("polar", "minimal")
        and (result.row["entry"], result.row["seed"]) != ("minimal", 2)
    ]
    failures = [{"entry": "reference", "seed": 1, "error": "exit code 3: no sessions"}]
    summary = study.write_study(make_question(), some, failures, tmp_path)
    assert study_page.missing(summary) == [
        "reference, seeds 0, 2", "minimal, seed 2", "minimal_time, seeds 0, 1, 2", "linear_nonlinear, seeds 0, 1, 2",
    ]  # fmt: skip
    text = (tmp_path / "study.html").read_text()
    assert "Only 5 of 15 runs have finished." in text
    assert "<h2>Not finished</h2>" in text and "<li>minimal, seed 2</li>" in text
    assert "<td>minimal_time</td><td>–</td>" in text
    stream = io.StringIO()
    table.print_study(summary, Console(width=120, file=stream))
    assert "not finished: minimal_time, seeds 0, 1, 2\n" in stream.getvalue()
    complete = study.summarize_study(make_question(), make_results(), [])
    assert complete["missing"] == [] and "have finished" not in study_page.headline(complete)


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
    found = entry_of(summary, "minimal")["difference"]
    assert found["over_units"][1] < 0
    assert (found["over_seeds"], found["verdict"]) == (None, "open")
    text = " All are compared with polar on one seed, which may be its luck: no side is taken."
    assert study_page.headline(summary).endswith(text)
    results = [
        result for result in make_results() if result.row["entry"] != "minimal" or result.row["seed"] == 1
    ]
    text = study_page.headline(study.summarize_study(make_question(), results, []))
    assert "linear_nonlinear are worse than polar. minimal is compared with polar on one seed" in text


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
