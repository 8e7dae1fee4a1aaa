"""A study trains what is missing, continues what was interrupted, and tells what failed."""

import csv
import json
import os
import signal
import threading
import time

import pytest

from polarjax.core import ConfigError
from polarjax.engine.interruption import Interrupted
from polarjax.studies import budget, conduct

from .conftest import POLAR

# optim.eps is the time of a step, in thousandths of a second by a thousand, in the fabricated logs.
SLOW = ("slow", POLAR, {"model.kwargs.fixation_rate": 5.0, "optim.eps": 1e-8})
FAST = {"model.kwargs.fixation_rate": 8.0, "optim.eps": 0.5e-8}


def starts(folder):
    return {
        str(path.parent.relative_to(folder)): len(path.read_text()) for path in sorted(folder.rglob("starts"))
    }


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_study_trains_every_entry_with_every_seed_and_writes_its_files(make_study, tmp_path, capsys):
    run = make_study([SLOW, ("fast", POLAR, FAST)], CONSTANTS=("tau_fix_ms",), TRUTH={"tau_fix_ms": 100.0})
    summary = run()
    folder = tmp_path / "study"
    assert summary == json.loads((folder / "study.json").read_text())
    slow, fast = summary["entries"]
    assert slow["bits_per_spike"]["mean"] == pytest.approx(0.605)
    assert slow["bits_per_spike"]["each"] == pytest.approx([0.6, 0.61])
    assert fast["difference"]["mean"] == pytest.approx(0.3)
    assert fast["difference"]["units_better"] == 3
    assert slow["difference"] is None
    assert slow["constants"]["tau_fix_ms"]["start"] == pytest.approx(200.0)
    assert slow["constants"]["tau_fix_ms"]["mean"] == pytest.approx(104.5)
    assert (slow["parameters"], slow["num_steps"]) == (1234, [600, 600])
    assert slow["training_seconds"] == pytest.approx(600 * 1e-5)
    assert slow["wall_clock_seconds"] > 0.05
    rows = read_csv(folder / "study.csv")
    assert [(row["entry"], row["seed"]) for row in rows] == [
        ("slow", "0"), ("slow", "1"), ("fast", "0"), ("fast", "1"),
    ]  # fmt: skip
    units = read_csv(folder / "units.csv")
    assert [float(row["fast - slow"]) for row in units] == pytest.approx([0.3] * 3)
    page = (folder / "study.html").read_text()
    assert "fast explains most, 0.905 bits per spike, 45 % of the oracle." in page
    assert page.count("data:image/png") == 2
    config = json.loads((folder / "fast/seed1/config.json").read_text())
    assert (config["seed"], config["data"]["seed"], config["train"]["floor_steps"]) == (1, 1, 0)
    assert "[4/4] fast, seed 1: 0.910 bits per spike" in capsys.readouterr().out


def test_what_is_finished_is_not_trained_again_and_what_is_added_is(make_study, tmp_path):
    make_study([SLOW])(seeds="1")
    summary = make_study([SLOW, ("fast", POLAR, FAST)])(only="fast")
    assert starts(tmp_path / "study") == {"fast/seed0": 1, "fast/seed1": 1, "slow/seed0": 1}
    slow, fast = summary["entries"]
    assert (slow["seeds"], fast["seeds"], fast["difference"]["seeds"]) == ([0], [0, 1], [0])
    assert summary["missing"] == [{"entry": "slow", "seed": 1}]
    page = (tmp_path / "study/study.html").read_text()
    assert "Only 3 of 4 runs have finished." in page and "<li>slow, seed 1</li>" in page
    assert "fast is compared with slow on one seed" in page
    assert slow["bits_per_spike"]["interval"] is None


def test_values_of_the_command_line_hold_in_every_entry(make_study, tmp_path):
    make_study([SLOW, ("fast", POLAR, FAST)])(seeds="1", overrides={"train.num_steps": "300"})
    steps = [json.loads(path.read_text())["train"]["num_steps"] for path in tmp_path.rglob("config.json")]
    assert steps == [300, 300]
    with pytest.raises(ConfigError, match=r"--config.seed is set for every run by the study"):
        make_study([SLOW])(overrides={"seed": "3"})


def test_a_run_that_fails_is_named_with_its_last_lines_and_the_others_go_on(make_study, tmp_path, capsys):
    run = make_study([("broken", POLAR, {"optim.clip_norm": 7.0}), SLOW])
    summary = run(seeds="1")
    message = "exit code 5: a long story\nerror: the filters fell out"
    assert summary["failures"] == [{"entry": "broken", "seed": 0, "error": message}]
    assert summary["entries"][1]["seeds"] == [0]
    assert "the filters fell out" in (tmp_path / "study/study.html").read_text()
    assert "[1/2] broken, seed 0 failed, exit code 5" in capsys.readouterr().out
    with pytest.raises(conduct.StudyFailed, match=r"1 run\(s\) of toys failed: broken with seed 0") as failed:
        conduct.raise_failures(summary)
    assert failed.value.exit_code == 1
    (tmp_path / "study/broken/seed0/mended").touch()
    assert run(seeds="1")["failures"] == []
    assert starts(tmp_path / "study") == {"broken/seed0": 2, "slow/seed0": 1}


def test_a_study_that_is_interrupted_saves_its_run_and_continues_there(make_study, tmp_path):
    run = make_study([SLOW, ("waits", POLAR, {"optim.clip_norm": 9.0}), ("fast", POLAR, FAST)], SEEDS=(0,))
    waiting = tmp_path / "study/waits/seed0/waiting"

    def interrupt():
        while not waiting.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted, match="waits/seed0 was trained, which is saved; to continue"):
        run()
    sender.join()
    assert starts(tmp_path / "study") == {"slow/seed0": 1, "waits/seed0": 1}
    summary = run()
    assert starts(tmp_path / "study") == {"fast/seed0": 1, "slow/seed0": 1, "waits/seed0": 2}
    assert [entry["seeds"] for entry in summary["entries"]] == [[0]] * 3
    attempts = (tmp_path / "study/waits/seed0/attempts.jsonl").read_text().splitlines()
    assert [json.loads(line)["exit_code"] for line in attempts] == [75, 0]


def test_an_entry_lasts_as_long_as_another_by_its_own_run_of_equal_steps(make_study, tmp_path):
    run = make_study(
        [("equal_time", POLAR, FAST, {"as_long_as": "slow"}), SLOW, ("fast", POLAR, FAST)], SEEDS=(0,)
    )
    summary = run()
    timed, slow, fast = summary["entries"]
    assert (timed["num_steps"], slow["num_steps"], fast["num_steps"]) == ([1200], [600], [600])
    assert timed["training_seconds"] == pytest.approx(slow["training_seconds"])
    config = json.loads((tmp_path / "study/equal_time/seed0/config.json").read_text())
    assert config["optim"]["warmup_steps"] == 100
    assert [config["train"][f"{name}_every"] for name in ("log", "eval", "save")] == [40, 400, 400]
    assert "as long as slow" in timed["config"]


def test_an_entry_without_a_run_of_equal_steps_is_timed_by_a_short_one_and_keeps_its_choice(
    make_study, tmp_path
):
    runs = [SLOW, ("equal_time", POLAR, FAST, {"as_long_as": "slow"})]
    make_study(runs)(seeds="1")
    choice = json.loads((tmp_path / "study/equal_time/seed0/num_steps.json").read_text())
    assert choice["num_steps"] == 1200
    assert choice["as_long_as"] == "slow"
    assert choice["own_step_seconds"] == pytest.approx(0.5e-5)
    log = tmp_path / "study/slow/seed0/metrics.jsonl"
    log.write_text(log.read_text().replace("samples_per_second", "nothing"))
    summary = make_study(runs)(seeds="1")
    assert summary["entries"][1]["num_steps"] == [1200]
    assert starts(tmp_path / "study") == {
        "equal_time/seed0": 1,
        "equal_time/seed0/calibration": 1,
        "slow/seed0": 1,
    }


def test_an_entry_cannot_last_as_long_as_a_run_that_failed(make_study):
    broken = ("slow", POLAR, {"optim.clip_norm": 7.0})
    summary = make_study([broken, ("equal_time", POLAR, FAST, {"as_long_as": "slow"})])(seeds="1")
    assert [failure["entry"] for failure in summary["failures"]] == ["slow", "equal_time"]
    assert "as long as slow with seed 0, which has not been trained" in summary["failures"][1]["error"]
    assert summary["entries"][1]["bits_per_spike"]["mean"] is None


def test_a_run_that_ended_early_by_itself_is_finished_and_told_with_its_steps(make_study, tmp_path):
    runs = [("slow", POLAR, {"optim.clip_norm": 3.0}), ("timed", POLAR, FAST, {"as_long_as": "slow"})]
    make_study(runs)(seeds="1")
    summary = make_study(runs)(seeds="1")
    assert [entry["num_steps"] for entry in summary["entries"]] == [[300], [600]]
    assert starts(tmp_path / "study")["slow/seed0"] == 1


def test_steps_between_the_last_timed_line_and_an_early_end_count_as_training(tmp_path):
    lines = [
        {"step": 40, "time/samples_per_second": 200.0},
        {"step": 80, "time/samples_per_second": 100.0},
        {"step": 120, "time/samples_per_second": 100.0},
        {"step": 150, "eval/bits_per_spike": 0.4},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert budget.trained_steps(tmp_path) == 150
    assert budget.training_seconds(tmp_path, 8) == pytest.approx(40 * 0.04 + (80 + 30) * 0.08)


def test_a_finished_run_of_before_runs_could_start_from_others_is_still_finished(make_study, tmp_path):
    make_study([SLOW])(seeds="1")
    saved = tmp_path / "study/slow/seed0/config.json"
    config = json.loads(saved.read_text())
    config.pop("init_from")
    saved.write_text(json.dumps(config))
    assert make_study([SLOW])(seeds="1")["entries"][0]["seeds"] == [0]
    assert starts(tmp_path / "study") == {"slow/seed0": 1}


def test_a_wrong_config_is_answered_before_anything_is_trained(make_study, tmp_path):
    run = make_study([SLOW, ("wrong", POLAR, {"optim.clip_nrom": 1.0})])
    with pytest.raises(ConfigError, match=r"entry 'wrong': .*has no 'clip_nrom'; did you mean 'clip_norm'"):
        run()
    assert starts(tmp_path) == {}


def test_numbers_that_a_study_asks_for_are_those_of_the_last_line_of_each_run(make_study, tmp_path):
    name = "time/samples_per_second"
    summary = make_study([SLOW], METRICS=(name, "jepa/deviation"))()
    found = summary["entries"][0]["metrics"]
    log = [
        json.loads(line) for line in (tmp_path / "study/slow/seed0/metrics.jsonl").read_text().splitlines()
    ]
    assert found[name]["each"] == [log[-1][name]] * 2
    assert found["jepa/deviation"] == {"mean": None, "interval": None, "each": []}
    assert "jepa/deviation" in (tmp_path / "study/study.html").read_text()
    assert name in (tmp_path / "study/study.csv").read_text().splitlines()[0]
