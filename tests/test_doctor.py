"""python -m polarjax.doctor: what it says of this machine, and each failure with its remedy and exit code."""

import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import jax
import numpy as np
import psutil
import pytest

from polarjax.data.sessions import write_session
from polarjax.doctor import __main__ as doctor
from polarjax.doctor import findings, machine, packages, recordings, speed
from tests.data.conftest import fields, session_arrays

ROOT = pathlib.Path(__file__).resolve().parents[1]
Usage = collections.namedtuple("Usage", "free")


def only(found):
    """Returns the one finding of a check."""
    (finding,) = found
    return finding


def refuse(error):
    """Returns a function that raises the error however it is called."""

    def raises(*args, **kwargs):
        raise error

    return raises


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the two checks that compute."""
    monkeypatch.setattr(doctor, "_check_product", lambda: iter(()))
    monkeypatch.setattr(doctor, "_check_train_step", lambda: iter(()))


@pytest.fixture
def make_session(tmp_path):
    """make_session(name, **arrays to replace) -> folder in tmp_path/sessions."""

    def make(name, given=None, **replaced):
        arrays = session_arrays(trials=3) | replaced
        return write_session(tmp_path / "sessions" / name, arrays=arrays, **fields(name) | (given or {}))

    return make


def test_a_sound_machine_gets_a_line_for_each_check_and_code_zero(quick, tmp_path, capsys):
    assert doctor.main(["--workdir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "python",
        "packages",
        "devices",
        "memory",
        "workdir",
        "cache",
    ]
    assert all(re.match(r"(OK   |WARN ) ", line) for line in lines)


def test_json_is_one_list_of_the_same_findings(quick, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert doctor.main(["--workdir", str(tmp_path / "file"), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert set(found[0]) == {"check", "level", "message", "remedy", "exit_code"}
    assert [(f["check"], f["exit_code"]) for f in found if f["level"] == "FAIL"] == [("workdir", 4)]


def test_the_first_failure_gives_the_exit_code(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "check_cache", refuse(RuntimeError("a broken\ndriver")))
    monkeypatch.setattr(packages, "_version", lambda name: None if name == "jax" else "1")
    assert doctor.main(["--workdir", str(tmp_path), "--data", str(tmp_path / "absent")]) == 2
    text = capsys.readouterr().out
    assert re.search(
        r"^FAIL  packages     not installed for .*: jax; remedy: source .venv/bin/activate", text, re.M
    )
    assert re.search(r"^FAIL  cache        RuntimeError: a broken driver; remedy: make clean env", text, re.M)
    assert re.search(r"^FAIL  session      config.data.sessions: .*absent is not a folder", text, re.M)
    monkeypatch.setattr(packages, "_version", lambda name: "1")
    monkeypatch.setattr(machine, "check_cache", lambda: iter(()))
    assert doctor.main(["--workdir", str(tmp_path), "--data", str(tmp_path / "absent")]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--wrkdir", "x"], r"unknown flag --wrkdir; did you mean 'workdir'"), (["x"], r"stray argument 'x'")],
)
def test_a_wrong_call_has_exit_code_two(capsys, arguments, message):
    assert doctor.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_any_package_it_says_so_instead_of_breaking(tmp_path):
    hidden = "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
    command = "from polarjax.doctor import __main__ as doctor; sys.exit(doctor.main([]))"
    line = [sys.executable, "-I", "-c", f"{hidden}sys.path.insert(0, {str(ROOT)!r}); {command}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")
    assert re.search(r"^FAIL  packages     not installed for .*: .*jax, jaxlib", done.stdout, re.M)
    assert re.search(r"^FAIL  train step   cannot be checked, No module named '\w+'", done.stdout, re.M)


def test_a_python_that_is_not_supported_fails(monkeypatch):
    assert only(packages.check_python()).level == "OK"
    monkeypatch.setattr(packages, "LOWEST_PYTHON", (3, 99))
    found = only(packages.check_python())
    assert (found.level, found.exit_code) == ("FAIL", 2)
    assert re.search(r"Python \S+ at .*, expected at least 3.99 and below 3.14", found.message)


def test_the_supported_pythons_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest, below = (".".join(map(str, v)) for v in (packages.LOWEST_PYTHON, packages.PYTHON_BELOW))
    assert project["requires-python"] == f">={lowest},<{below}"


def test_other_versions_are_a_warning_that_names_both(monkeypatch):
    monkeypatch.setattr(packages, "read_pins", lambda: {"jax": "0.10.2", "numpy": "1"})
    monkeypatch.setattr(packages, "_version", {"jax": "0.9", "numpy": "1"}.get)
    found = only(packages.check_packages())
    assert (found.level, found.message) == ("WARN", "other versions than tested: jax 0.9 (pinned 0.10.2)")
    assert found.remedy.startswith("make clean env")


def test_pins_come_from_the_installed_package_where_the_file_is_absent(monkeypatch, tmp_path):
    from_file = packages.read_pins()
    assert from_file["jax"] == jax.__version__ and len(from_file) > 20
    lines = [*(f"{name}=={pin}" for name, pin in from_file.items()), 'torch==2; extra == "torch"']
    monkeypatch.setattr(packages, "REQUIREMENTS", tmp_path / "absent")
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: lines)
    assert packages.read_pins() == from_file
    monkeypatch.setattr(
        packages.importlib.metadata,
        "requires",
        refuse(packages.importlib.metadata.PackageNotFoundError("polarjax")),
    )
    assert packages.read_pins() == {}
    assert only(packages.check_packages()).level == "WARN"


@pytest.mark.parametrize(
    ("platforms", "level", "message", "remedy"),
    [
        (
            "",
            "FAIL",
            r"\(cpu\), \d+ cores, but nvidia-smi lists GPU 0: NVIDIA H200",
            r"make clean env .*\[cuda\]",
        ),
        ("cpu", "WARN", r"JAX_PLATFORMS=cpu hides GPU 0: NVIDIA H200$", r"unset JAX_PLATFORMS"),
    ],
)
def test_a_gpu_that_jax_does_not_use_is_told(monkeypatch, tmp_path, platforms, level, message, remedy):
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1234)'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    found = only(machine.check_devices())
    assert (found.level, found.exit_code) == (level, 2 if level == "FAIL" else 0)
    assert re.search(message, found.message) and re.search(remedy, found.remedy)


def test_a_driver_that_does_not_answer_is_no_gpu(monkeypatch, tmp_path):
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert machine.find_gpus() == ""
    assert only(machine.check_devices()).level == "OK"


def test_a_platform_that_jax_lacks_fails_with_its_name(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", refuse(RuntimeError("Unable to initialize backend 'cuda'")))
    found = only(machine.check_devices())
    assert (found.level, found.exit_code) == ("FAIL", 2)
    assert found.message == "JAX finds no device (Unable to initialize backend 'cuda')"
    assert found.remedy == "unset JAX_PLATFORMS, which is 'cuda'"


def test_little_memory_is_a_warning_and_a_container_may_have_less_than_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.available_memory_gb() == pytest.approx(psutil.virtual_memory().available / 1e9, rel=0.2)
    (tmp_path / "memory.current").write_text("400000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory_gb() > 1
    (tmp_path / "memory.max").write_text("1500000000\n")
    assert machine.available_memory_gb() == pytest.approx(1.1)
    found = only(machine.check_memory())
    assert found.level == "WARN" and found.message.startswith("1.1 GB available, a quick run should have")
    assert "batch_size" in found.remedy


def test_a_workdir_that_cannot_be_written_or_is_full_fails(monkeypatch, tmp_path):
    assert only(machine.check_storage(tmp_path / "new" / "deep")).level in ("OK", "WARN")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    found = only(machine.check_storage(tmp_path / "file" / "runs"))
    assert (found.level, found.exit_code) == ("FAIL", 4)
    assert re.search(r"file/runs: .*file cannot be written \(Not a directory\)", found.message)
    assert found.remedy == "choose another --workdir"
    for free, level, code in ((5e7, "FAIL", 4), (1e9, "WARN", 0), (1e10, "OK", 0)):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder, free=free: Usage(free))
        found = only(machine.check_storage(tmp_path))
        assert (found.level, found.exit_code) == (level, code)
        assert f"can be written, {free / 1e9:.1f} GB free" in found.message


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = only(machine.check_cache())
    assert found.level == "WARN" and found.remedy == "set XDG_CACHE_HOME to a folder that you may write"
    assert re.search(r"file/polarjax/jax cannot be written \(Not a directory\)", found.message)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    assert only(machine.check_cache()).message == f"compiled programs are kept in {tmp_path / 'chosen'}"


def test_a_matrix_product_is_timed_and_a_wrong_one_fails(monkeypatch):
    monkeypatch.setattr(speed, "SIZE", 64)
    found = only(speed.check_product())
    assert found.level == "OK" and re.fullmatch(r"64 x 64 float32 in \S+ ms, [\d,]+ GFLOP/s", found.message)
    monkeypatch.setattr(speed.jnp, "matmul", lambda a, b, precision: 1.1 * (a @ b))
    found = only(speed.check_product())
    assert (found.level, found.exit_code) == ("FAIL", 5)
    assert re.search(r"but it differs from NumPy's by 0\.\d+", found.message)
    monkeypatch.setattr(speed.jnp, "matmul", lambda a, b, precision: np.nan * (a @ b))
    assert only(speed.check_product()).level == "FAIL"


def test_a_real_train_step_runs_and_one_that_is_not_finite_fails(monkeypatch):
    step, state, request = speed._prepare(speed.synthetic_batch())
    compiled = step.lower(state, (), request).compile()
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: compiled)
    kept = jax.tree.map(np.asarray, state)
    monkeypatch.setattr(speed, "_prepare", lambda batch: (step, state, request))
    found = only(speed.check_train_step())
    assert found.level == "OK"
    assert re.fullmatch(
        r"a very small .* to compile, \S+ ms a step, loss \S+ to \S+ in 5 steps", found.message
    )
    again = jax.tree.map(lambda leaf, old: jax.device_put(leaf, old.sharding), kept, state)
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), request)
    monkeypatch.setattr(speed, "_prepare", lambda batch: (step, again, broken))
    found = only(speed.check_train_step())
    assert (found.level, found.exit_code) == ("FAIL", 5)
    assert found.message == "step 1 of a very small Polar-V1 is not finite, its loss is nan"


def test_every_session_is_checked_and_every_problem_is_told(make_session, tmp_path):
    make_session("alpha", spikes=np.tile(np.array([1, 0, 1], np.uint8), (90, 1)))
    (make_session("beta") / "gaze.npy").write_bytes(b"")
    (make_session("gamma") / "session.json").write_text("{")
    found = list(recordings.check_sessions(str(tmp_path / "sessions")))
    assert [(f.check, f.level, f.exit_code) for f in found] == [
        ("session", "OK", 0),
        ("session", "WARN", 0),
        ("session", "FAIL", 3),
        ("session", "FAIL", 3),
    ]
    assert found[0].message == "alpha: 3 units, 90 bins at 120 Hz, windows 9 x 7 x 1 at 10 pixels/deg"
    assert found[1].message == "alpha: 1 of 3 units without a spike: alpha-1"
    assert re.search(r"session beta: gaze.npy: is not a NumPy array file", found[2].message)
    assert re.search(r"session gamma: session.json", found[3].message)


def test_sessions_that_do_not_fit_together_fail(make_session, tmp_path):
    make_session("alpha")
    make_session("beta", {"rate_hz": 60.0})
    *_, last = recordings.check_sessions(str(tmp_path / "sessions"))
    assert (last.level, last.exit_code) == ("FAIL", 3)
    assert "sessions alpha and beta differ in rate_hz: 120.0 and 60.0" in last.message
    twice = f"{tmp_path / 'sessions' / 'alpha'},{tmp_path / 'sessions' / 'alpha'}"
    *_, last = recordings.check_sessions(twice)
    assert last.level == "FAIL" and "two sessions have the name 'alpha'" in last.message


def test_an_error_of_many_lines_becomes_one():
    found = only(findings.run_check("devices", refuse(RuntimeError("no\n driver\n" + "x" * 400))))
    assert found.message.startswith("RuntimeError: no driver xxx") and len(found.message) < 330
    assert "\n" not in str(found)
