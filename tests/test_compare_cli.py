"""python compare.py: a study from end to end, two of its runs unit by unit, and how it answers what is wrong."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import compare as command

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = '''
"""The linear-nonlinear model on a recording of 30 s, a few steps."""

from configs import polar
from polarjax import systems


def get_config():
    config = polar.get_config("quick")
    config.data.update(burn_in=4, predicted=28, batch_size=16)
    config.data.virtual.update(minutes=0.5, cache={cache!r})
    config.train.floor_steps = 4
    config = systems.floor(config).copy_and_resolve_references().unlock()
    config.optim.warmup_steps = 1
    config.train.update(log_every=2, eval_every=4, save_every=2, eval_batches=1, floor_steps=0)
    return config
'''
STUDY = '''
"""Does learning pay?"""

QUESTION = "Does learning pay?"
SEEDS = (0, 1, 2)
REFERENCE = "frozen"
RUNS = [
    ("frozen", {config!r}, {{"optim.groups.readout": None}}),
    ("learned", {config!r}, {{"optim.groups.readout.learning_rate": 0.05}}),
]
'''


def run_command(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, str(ROOT / "compare.py"), *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of two entries and one seed, trained by train.py; tests/studies has more seeds."""
    folder = tmp_path_factory.mktemp("study")
    config = folder / "tiny.py"
    config.write_text(CONFIG.format(cache=str(folder / "cache")))
    (folder / "learning.py").write_text(STUDY.format(config=str(config)))
    line = ("--study", folder / "learning.py", "--workdir", folder / "runs", "--seeds", "1")
    return folder, list(map(str, line)), run_command(*line)


def test_a_study_trains_its_runs_and_prints_its_table(trained):
    folder, _, done = trained
    assert (done.returncode, done.stderr) == (0, "")
    assert "[2/2] learned, seed 0: " in done.stdout
    assert done.stdout.endswith(f"report: {folder / 'runs/study.html'}\n")
    summary = json.loads((folder / "runs/study.json").read_text())
    frozen, learned = summary["entries"]
    assert frozen["seeds"] == learned["seeds"] == [0]
    assert learned["num_steps"] == [4]
    assert learned["difference"]["units"] > 50
    assert 0.5 < summary["oracle"] < 1.5
    for entry in (frozen, learned):
        assert 0 < entry["training_seconds"] < entry["wall_clock_seconds"]
        assert entry["parameters"] > 1000
    rows = list(csv.DictReader((folder / "runs/study.csv").read_text().splitlines()))
    assert [(row["entry"], row["seed"]) for row in rows] == [("frozen", "0"), ("learned", "0")]


def test_the_same_line_trains_nothing_again(trained, capsys):
    folder, line, _ = trained
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("metrics.jsonl")}
    assert command.main(line) == 0
    assert capsys.readouterr().out.count("finished before") == len(before) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_config_in_the_same_folder_is_refused_before_anything_is_trained(trained, capsys):
    folder, line, _ = trained
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    assert command.main([*line, "--config.optim.b2=0.9"]) == 2
    error = capsys.readouterr().err
    assert (
        "config.optim.b2 is 0.95 there and 0.9 here (frozen, learned). Train this study in another --workdir"
        in error
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_runs_are_compared_unit_by_unit(trained, capsys):
    folder, _, _ = trained
    runs = [folder / "runs" / name / "seed0" for name in ("frozen", "learned")]
    assert command.main(["--runs", ",".join(map(str, runs)), "--workdir", str(folder / "pair")]) == 0
    told = capsys.readouterr().out
    assert re.match(r"learned/seed0 explains [+-]\d\.\d{3} bits per spike .* against frozen/seed0", told)
    assert told.endswith(f"report: {folder / 'pair/pair.html'}\n")
    found = json.loads((folder / "pair/pair.json").read_text())
    assert found["gained"] + found["lost"] <= found["units"] > 50


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "expected one of --study studies/v1_models.py and --runs runs/a,runs/b"),
        (["--study", "x.py", "--runs", "a,b"], 2, "expected one of --study"),
        (["--study", f"{ROOT}/studies/v1_model.py"], 2, "; did you mean 'v1_models'?"),
        (["--study", "compare"], 2, "compare: no such study file in studies"),
        (["--study", f"{ROOT}/studies/v1_models.py", "--only", "polra"], 2, "did you mean 'polar'?"),
        (["--study", f"{ROOT}/studies/v1_models.py", "--seeds", "0"], 2, "expected the number of seeds"),
        (["--study", "x.py", "--config", "configs/polar.py"], 2, "--config takes the name of a value"),
        (["--studdy", "x.py"], 2, "unknown flag --studdy; did you mean 'study'?"),
        (["--runs", "runs/a"], 2, "--runs is 'runs/a'; expected two work directories"),
        (["--runs", "a,b", "--seeds", "3"], 2, "--seeds belongs to --study"),
        (["--runs", "a,b", "--config.seed=3"], 2, "--config.seed belongs to --study"),
        (["--runs", "{absent}/a,{absent}/b"], 4, "does not exist; expected the directory that train.py --workdir"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_answered_in_one_line_with_its_exit_code(tmp_path, capsys, arguments, code, message):
    assert command.main([argument.format(absent=tmp_path) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_study_with_a_failed_run_ends_with_code_one_and_names_it(monkeypatch, capsys):
    summary = {
        "study": "toys", "question": "Which?", "reference": "a", "workdir": "w", "entries": [],
        "failures": [{"entry": "a", "seed": 3, "error": "exit code 3: no sessions"}],
        "missing": [{"entry": "b", "seed": 3}],
    }  # fmt: skip
    monkeypatch.setattr(command.conduct, "run_study", lambda *arguments, **options: summary)
    assert command.main(["--study", "toys.py"]) == 1
    told = capsys.readouterr()
    assert "failed: a, seed 3: exit code 3: no sessions" in told.out
    assert "not finished: b, seed 3" in told.out
    assert told.err.startswith("error: 1 run(s) of toys failed: a with seed 3.")


def test_help_tells_the_flags(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "--only" in told and "There are jepa_choices, " in told
