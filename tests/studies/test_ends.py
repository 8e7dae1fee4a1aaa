"""How runs of a study end that nobody asked to end, and what is said of files that are not what they should be."""

import os
import signal
import subprocess
import sys
import time

import pytest

from polarjax.studies import launch

from .conftest import FAKE, POLAR
from .test_conduct import FAST, SLOW, starts

LAUNCHER = """
import pathlib, sys
from polarjax.studies.launch import train_run
train_run(pathlib.Path(sys.argv[1]), sys.argv[2], {"optim.clip_norm": "9.0"}, pathlib.Path(sys.argv[3]))
"""


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)


def test_a_run_that_the_system_killed_is_told_with_the_probable_cause(make_study):
    summary = make_study([("killed", POLAR, {"optim.clip_norm": 8.0}), SLOW])(seeds="1")
    (failure,) = summary["failures"]
    assert failure["error"].startswith(
        "killed by the system (signal 9), probably out of memory; end other programs"
    )
    assert "exit code" not in failure["error"]


@pytest.mark.parametrize(
    ("code", "text"),
    [(5, "exit code 5"), (-int(signal.SIGSEGV), "ended by signal 11 (Segmentation fault)")],
)
def test_an_exit_code_and_a_signal_are_told_apart(code, text):
    assert launch._ending(code).startswith(text)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_run_saves_and_leaves_when_its_study_is_killed(tmp_path):
    study = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(FAKE), POLAR, str(tmp_path / "run")])
    try:
        wait_for(tmp_path / "run/waiting")
        assert not (tmp_path / "run/saved").exists()
        os.kill(study.pid, signal.SIGKILL)
        wait_for(tmp_path / "run/saved")
    finally:
        study.kill()
        study.wait()


def test_a_program_whose_parent_is_gone_already_does_not_start(tmp_path):
    line = [
        sys.executable,
        str(launch.LEASH),
        "1" if os.getpid() != 1 else "2",
        "/bin/touch",
        str(tmp_path / "x"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "x").exists()) == (
        (1, False) if sys.platform == "linux" else (0, True)
    )


def test_a_damaged_report_is_named_with_the_line_that_writes_it_again_and_the_others_are_reported(
    make_study, tmp_path
):
    run = make_study([SLOW, ("fast", POLAR, FAST)])
    run(seeds="1")
    folder = tmp_path / "study/fast/seed0"
    report = folder / "eval/600/report.json"
    whole = report.read_text()
    report.write_text(whole[:40])
    summary = run(seeds="1")
    (failure,) = summary["failures"]
    assert (failure["entry"], failure["seed"]) == ("fast", 0)
    assert f"{report} is damaged (" in failure["error"]
    assert failure["error"].endswith(f"write it again: python eval.py --workdir {folder}")
    assert [entry["seeds"] for entry in summary["entries"]] == [[0], []]
    report.write_text(whole)
    assert run(seeds="1")["failures"] == []
    assert starts(tmp_path / "study") == {"fast/seed0": 1, "slow/seed0": 1}


def test_a_run_on_other_data_is_not_compared_and_said_to_be(make_study):
    other = ("other", POLAR, FAST | {"data.virtual.seed": 1})
    prepared = ("pre", POLAR, {"optim.clip_norm": 2.0, "data.virtual.seed": 2})
    summary = make_study([prepared, SLOW, other])(seeds="1")
    assert summary["sessions"] == {"one": "0" * 64}
    (failure,) = summary["failures"]
    assert failure["entry"] == "other"
    assert (
        "session 'one' (fingerprint 111111111111) holds other arrays than that of slow with seed 0"
        in failure["error"]
    )
    assert "another --workdir" in failure["error"]
    assert [entry["seeds"] for entry in summary["entries"]] == [[0], [0], []]
