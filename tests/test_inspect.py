"""python -m polarjax.inspect: what it tells of a run, what damage it finds, and that it needs no JAX."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from polarjax import inspect
from polarjax.engine import archive, checkpoints
from polarjax.engine.state import TrainState, flatten
from tests.engine.runs import flip_a_bit, run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of the toy system with checkpoints of steps 8 and 12; the latter is the best and the latest."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    run(folder)
    return folder


@pytest.fixture
def copy(workdir, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(workdir, tmp_path / "copy")


def look(capsys, *arguments):
    """Runs the command; returns its exit code, its JSON and what it printed as errors."""
    code = inspect.main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    return code, json.loads(captured.out), captured.err


def test_the_command_imports_neither_jax_nor_what_needs_it(workdir):
    line = [sys.executable, "-X", "importtime", "-m", "polarjax.inspect", str(workdir), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert json.loads(done.stdout)["latest"]["ok"]
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert {"numpy", "tensorstore", "polarjax"} <= imported
    assert imported & {"jax", "jaxlib", "flax", "orbax", "optax", "tensorboardX"} == set()


def test_json_holds_the_steps_and_the_digest_of_every_array_of_the_latest(workdir, capsys):
    code, found, errors = look(capsys, workdir)
    assert (code, errors) == (0, "")
    state, meta = checkpoints.restore(workdir)
    assert found["steps"] == [8, 12]
    assert found["latest"] == {"step": 12, "digests": meta["digests"], "ok": True}
    assert found["latest"]["digests"] == {path: archive.digest(leaf) for path, leaf in flatten(state).items()}
    assert found["best"] == 12
    assert found["problems"] == []
    checkpoint = found["checkpoint"]
    assert checkpoint["meta"]["config"] == meta["config"]
    assert checkpoint["sessions"] == [
        {"name": "toy", "subject": "s", "fingerprint": "abc", "path": "", "units": 3}
    ]
    kernel = {"shape": [6, 4], "dtype": "float32", "numbers": 24, "bytes": 96}
    assert checkpoint["arrays"]["params/core/kernel"] == kernel
    assert [step for step, _ in found["history"]["train/loss"]] == [2, 12]
    assert [step for step, _ in found["history"]["eval/bits_per_spike"]] == [4, 8, 12]


def test_the_text_tells_all_of_it(workdir, capsys):
    assert inspect.main([str(workdir)]) == 0
    text = capsys.readouterr().out
    for part in (
        r"^checkpoints: 8, 12 \(best, latest\)$",
        r"^checkpoint 12: eval/bits_per_spike -0\.\d+$",
        r"^  written with python 3\.\d+\.\d+, jax \S+, .*git commit",
        r"^  data: batch_size=8 seed=1$",
        r"^sessions: 1, 3 units$",
        r"^  toy: subject s, 3 units, fingerprint abc, embedded$",
        r"^core/kernel +\[6, 4\] +float32 +24 +96$",
        r"^all params +3 arrays +40 +160$",
        r"^all rng +1 array +2 +8$",
        r"^  train/loss: \S+ at step 2, \S+ at step 12$",
        r"^  eval/bits_per_spike: \S+ at 4, \S+ at 8, \S+ at 12$",
        r"^digests of checkpoint 12: all 14 arrays are what was written$",
    ):
        assert re.search(part, text, re.MULTILINE), part


def test_a_step_is_chosen_and_the_latest_is_told_all_the_same(workdir, capsys):
    code, found, _ = look(capsys, workdir, "--step", 8)
    assert (code, found["checkpoint"]["step"], found["latest"]["step"]) == (0, 8, 12)
    assert found["checkpoint"]["digests"] != found["latest"]["digests"]
    assert look(capsys, workdir, "--step=best")[1]["checkpoint"]["step"] == 12


def test_a_flipped_bit_is_found_and_the_other_checkpoint_is_still_whole(copy, capsys):
    flip_a_bit(copy / "checkpoints" / "12")
    code, found, errors = look(capsys, copy)
    assert code == 4
    assert found["latest"]["step"] == 12 and not found["latest"]["ok"]
    named = r"checkpoints/12: step 12 is damaged, .*params/core/kernel in state/d/\w+"
    assert any(re.search(named, problem) for problem in found["problems"])
    assert re.search(r"^error: 11 more like these; --json lists them all$", errors, re.M)
    assert len(found["problems"]) == 14
    code, found, errors = look(capsys, copy, "--step", 8)
    assert (code, errors) == (0, "")
    assert found["checkpoint"]["ok"] and not found["latest"]["ok"]


def test_a_value_that_changed_unnoticed_by_the_storage_is_named_with_parameter_and_file(
    copy, capsys, monkeypatch
):
    read = archive.read_arrays

    def misread(folder, paths):
        arrays, problems = read(folder, paths)
        arrays["params/core/kernel"].view("uint32")[0, 0] ^= 1
        return arrays, problems

    monkeypatch.setattr(archive, "read_arrays", misread)
    code, found, errors = look(capsys, copy)
    assert (code, found["latest"]["ok"]) == (4, False)
    assert re.search(r"params/core/kernel does not match its digest \(state/d/\w+\)", errors)
    assert errors.count("\n") == 1
    assert inspect.main([str(copy)]) == 4
    assert "digests of checkpoint 12: DAMAGED, 1 found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("meta/metadata", r"step 12 is damaged, its meta is unreadable"),
        ("state/manifest.ocdbt", r"its arrays are unreadable \(step in state/manifest.ocdbt: "),
    ],
)
def test_a_file_that_is_gone_is_named(copy, capsys, file, message):
    (copy / "checkpoints" / "12" / file).unlink()
    code, found, errors = look(capsys, copy)
    assert (code, found["latest"]) == (4, {"step": 12, "digests": {}, "ok": False})
    assert re.search(message, found["problems"][-1])
    assert f"error: {found['problems'][0]}" in errors
    assert inspect.main([str(copy)]) == 4
    assert "digests of checkpoint 12: DAMAGED" in capsys.readouterr().out


def test_a_folder_of_values_names_the_file_of_a_large_array(tmp_path, capsys):
    config = {"train": {"best_metric": "score"}}
    meta = {"config": config, "info": {}, "versions": {}, "git_commit": "", "metrics": {}, "tally": {}}
    kernel = 1 + np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    state = TrainState(
        np.asarray(1, np.int32), {"core": {"kernel": kernel}}, None, {}, {}, np.zeros(2, np.uint32)
    )
    with checkpoints.Checkpoints(tmp_path, keep_latest=1, keep_best=0, best_metric="score") as saver:
        saver.save(state, meta)
    files = [path for path in (tmp_path / "checkpoints/1/state").rglob("d/*") if path.stat().st_size > 4000]
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    files[0].write_bytes(content)
    code, found, errors = look(capsys, tmp_path)
    assert code == 4 and list(found["latest"]["digests"]) != []
    name = re.escape(str(files[0].relative_to(tmp_path / "checkpoints/1")))
    assert re.search(rf"params/core/kernel .*{name}", errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["{absent}"],
            r"work directory .*absent does not exist; expected the directory that train.py --workdir",
        ),
        (["{empty}"], r"empty holds no checkpoint; is it the --workdir of a run\?"),
        (["{workdir}", "--step", "9"], r"holds no checkpoint of step 9; it has 8, 12"),
    ],
)
def test_what_is_not_there_is_named_and_json_stays_one_object(workdir, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"workdir": workdir, "absent": tmp_path / "absent", "empty": tmp_path / "empty"}
    code, found, errors = look(capsys, *(argument.format(**places) for argument in arguments))
    assert (code, found["latest"]) == (4, None)
    assert re.search(message, found["problems"][0])
    assert errors == f"error: {found['problems'][0]}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"^error: DIR is missing: work directory of a run"),
        (
            ["runs", "--step", "last"],
            r"^error: --step is 'last'; expected the number of a step, best or latest",
        ),
        (["runs", "--jso"], r"^error: unknown flag --jso; did you mean 'json'"),
    ],
)
def test_a_wrong_call_has_exit_code_two(capsys, arguments, message):
    assert inspect.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_log_that_cannot_be_read_is_named(copy, capsys):
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").mkdir()
    assert inspect.main([str(copy)]) == 4
    assert re.search(r"^error: .*copy cannot be read \(.*metrics\.jsonl", capsys.readouterr().err)
