"""python eval.py: what it writes and prints, and how it answers what is wrong."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

import eval as command
from polarjax import data as data_module
from polarjax import systems
from polarjax.systems import polar
from tests.data.conftest import data_section

from .reports.fabricated import save_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_command(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    line = [sys.executable, str(ROOT / "eval.py"), *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a very small Polar-V1 that was not trained."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"n_levels": 2, "n_pairs": 2, "kernel_size": 3, "code_width": 4, "finest_stride": 2}
    config = ml_collections.ConfigDict({"system": "polar", "seed": 0, "optim": {}})
    virtual = {"seed": 3, "minutes": 0.4}
    sizes = {"burn_in": 4, "predicted": 28, "batch_size": 16, "seed": 0}
    config.data = data_section("", folder / "cache", virtual=virtual, **sizes)
    config.model = {"name": "polar_v1", "kwargs": small}
    config.loss = polar.poisson_loss()
    config.optim = {"bounds": {}}
    config.train = {"num_steps": 8, "best_metric": "eval/bits_per_spike"}
    data = data_module.build(config.data)
    batch = data.fetch(data.resident, data.train(0))
    variables = dict(jax.jit(systems.build(config, data.info).init)(jax.random.key(0), batch))
    params, state = jax.tree.map(np.asarray, (variables.pop("params"), variables))
    save_checkpoint(folder / "run", config, data.info, params, steps=(3, 8), model_state=state)
    return folder / "run"


def test_it_writes_the_report_and_prints_its_table(workdir):
    done = run_command("--workdir", workdir)
    assert (done.returncode, done.stderr) == (0, "")
    page = workdir / "eval" / "8" / "report.html"
    assert done.stdout.endswith(f"report: {page}\n")
    assert re.search(r"oracle +\d\.\d{3} +\d\.\d{3} to \d\.\d{3} +\d\.\d{3} +100 %", done.stdout)
    report = json.loads(page.with_name("report.json").read_text())
    assert report["checkpoint_step"] == 8
    assert report["units"] == 70
    assert 50 < report["constants"]["temporal/tau_fix_ms"] < 200
    text = page.read_text()
    assert "Learned filters" in text
    assert "Where the units look" in text


def test_a_truncated_checkpoint_is_named_and_has_its_exit_code(workdir, tmp_path):
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", workdir, copy], check=True)
    arrays = [path for path in (copy / "checkpoints" / "8" / "state").rglob("d/*") if path.is_file()]
    largest = max(arrays, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    done = run_command("--workdir", copy)
    assert done.returncode == 4
    assert "step 8 is damaged" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--workdir is missing"),
        (
            ["--workdir", "{absent}"],
            4,
            "absent does not exist; expected the directory that train.py --workdir",
        ),
        (["--workdir", "{workdir}", "--step", "7"], 4, "no checkpoint of step 7; it has 3, 8"),
        (["--workdir", "{workdir}", "--step", "last"], 2, "--step is 'last'; expected the number of a step"),
        (["--workdir", "{workdir}", "--tier", "tests"], 2, "--tier is 'tests'; did you mean 'test'?"),
        (["--workdri", "{workdir}"], 2, "unknown flag --workdri; did you mean 'workdir'?"),
        (["{workdir}"], 2, "stray argument"),
    ],
)
def test_a_wrong_call_is_answered_in_one_line_with_its_exit_code(
    workdir, tmp_path, capsys, arguments, code, message
):
    places = {"workdir": workdir, "absent": tmp_path / "absent"}
    assert command.main([argument.format(**places) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_help_tells_the_flags(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    assert left.value.code == 0
    assert "--tier" in capsys.readouterr().out
