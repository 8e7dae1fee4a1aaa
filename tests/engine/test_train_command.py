import os
import signal
import subprocess
import sys

import ml_collections
import pytest

import train as command
from polarjax.engine import interruption


def test_a_wrong_command_line_ends_with_one_line_and_code_two(repository):
    line = [sys.executable, "train.py", "--confg", "x"]
    done = subprocess.run(line, cwd=repository, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown flag --confg; did you mean 'config'?\n"


def test_a_platform_that_jax_cannot_start_ends_with_one_line_and_code_two(repository):
    line = [sys.executable, "train.py", "--config", "configs/polar_relaxed.py:quick"]
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    done = subprocess.run(line, cwd=repository, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: JAX_PLATFORMS is 'nonsense', and JAX finds no such device here (")
    assert "set JAX_PLATFORMS=cpu" in done.stderr and done.stderr.count("\n") == 1


def test_a_signal_while_the_report_is_written_ends_it_and_the_same_line_writes_it(monkeypatch, tmp_path):
    trained, reports = [], []
    data = ml_collections.ConfigDict({"info": None, "close": lambda: None})

    def write_report(workdir):
        reports.append(workdir)
        if len(reports) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"checkpoint_step": 3}

    monkeypatch.setattr(command.polarjax.data, "build", lambda section: data)
    monkeypatch.setattr(command.loop, "train", lambda *_, **options: trained.append(options["break_lock"]))
    monkeypatch.setattr(command.polarjax.systems, "build", lambda config, info: None)
    monkeypatch.setattr(command.evaluate, "write_report", write_report)
    monkeypatch.setattr(command.table, "print_table", lambda report: None)
    line = ["--config", "configs/polar_relaxed.py:quick", "--workdir", str(tmp_path)]
    with pytest.raises(interruption.Interrupted, match="stopped while the report was written") as stopped:
        command.main(line)
    assert stopped.value.exit_code == 75
    command.main([*line, "--break-lock"])
    assert reports == [tmp_path, tmp_path]
    assert trained == [False, False, True, True]


def test_a_signal_while_the_data_is_read_ends_with_code_75(monkeypatch, tmp_path):
    monkeypatch.setattr(command.polarjax.data, "build", lambda section: signal.raise_signal(signal.SIGUSR1))
    line = ["--config", "configs/polar_relaxed.py:quick", "--workdir", str(tmp_path)]
    with pytest.raises(
        interruption.Interrupted, match="stopped while the data was read; .* again"
    ) as stopped:
        command.main(line)
    assert stopped.value.exit_code == 75
