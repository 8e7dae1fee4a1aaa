"""Several processes of one run: they train, evaluate, save, stop and go on as one does."""

import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from polarjax.core import ConfigError
from polarjax.data.sessions import write_session
from polarjax.engine import checkpoints, interruption, processes
from tests.data.conftest import fields, session_arrays
from tests.engine.runs import assert_same_bits, flip_a_bit, lines_of, run, without_times

WORKER = """
import os, signal, sys, time
from polarjax.engine import interruption, loop, processes
processes.initialize_distributed(dict(flag.split("=") for flag in sys.argv[3:]))
import jax
from tests.engine import toy
assert jax.process_count() == jax.device_count() == 2
data = toy.make_data()

def train(step):
    if step == 5 and jax.process_index() == 1:
        os.kill(os.getpid(), int(sys.argv[2]))
    if step in range(5, 9):
        time.sleep(0.3)  # the processes need a moment to agree on the step after which both stop
    return data.train(step)

try:
    with interruption.watch_signals() as stop:
        loop.train(toy.make_config(), toy.make_system(), data._replace(train=train), sys.argv[1], stop=stop)
    if jax.process_index() == 0:
        time.sleep(3)
    processes.wait_for_processes()
    print("left at", time.time())
except interruption.Interrupted as interrupted:
    print(interrupted, flush=True)
    sys.exit(interrupted.exit_code)
"""

CLUSTER = re.compile("SLURM|OMPI|TPU_")

# The other flags are those of the runs in this process: the last bits may depend on them.
ONE_DEVICE = re.sub(r"(device_count=)\d+", r"\g<1>1", os.environ["XLA_FLAGS"])


@pytest.fixture
def started(monkeypatch):
    """What jax.distributed.initialize was called with, in an environment of no cluster."""
    for name in filter(CLUSTER.match, list(os.environ)):
        monkeypatch.delenv(name)
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"process_id": "0"},
            r"--process_id needs --coordinator_address too; give all of --coordinator_address",
        ),
        (
            {"coordinator_address": "a:1", "num_processes": "two", "process_id": "0"},
            r"--num_processes and --process_id must be whole numbers",
        ),
        (
            {"coordinator_address": "a:1", "num_processes": "2", "process_id": "2"},
            r"--process_id is 2, it must be in \[0, 2\), below --num_processes",
        ),
    ],
)
def test_wrong_flags_of_several_processes_are_named(flags, message):
    with pytest.raises(ConfigError, match=message):
        processes.initialize_distributed(flags)


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ({}, {}, []),
        ({}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, []),  # a batch script, outside srun
        ({}, {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-4]"}, [{}]),
        ({}, {"TPU_WORKER_HOSTNAMES": "host0,host1"}, [{}]),
        ({}, {"TPU_WORKER_HOSTNAMES": "localhost"}, []),
        ({"distributed": ""}, {}, [{}]),
        ({}, {"OMPI_COMM_WORLD_SIZE": "1"}, []),
        ({}, {"OMPI_COMM_WORLD_SIZE": "2"}, [{"cluster_detection_method": "ompi"}]),
    ],
)
def test_the_processes_of_a_cluster_find_each_other_and_a_single_one_starts_nothing(
    monkeypatch, started, flags, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.initialize_distributed(flags)
    assert started == expected


def test_a_process_with_a_place_of_its_own_holds_all_devices_of_a_slurm_task(monkeypatch, started):
    for name, value in by_srun(1, 1)[1].items():
        monkeypatch.setenv(name, value)
    place = {"coordinator_address": "a:1", "num_processes": "2", "process_id": "1"}
    processes.initialize_distributed(place)
    assert [call["cluster_detection_method"] for call in started] == ["deactivate"]
    assert [call["process_id"] for call in started] == [1]


def test_processes_that_cannot_join_are_told_the_flags_that_always_work(monkeypatch):
    for name in filter(CLUSTER.match, list(os.environ)):
        monkeypatch.delenv(name)
    with pytest.raises(
        ConfigError, match=r"cannot join \(.+\): start all of them, .* --coordinator_address, "
    ):
        processes.initialize_distributed({"distributed": ""})


def test_processes_that_jax_sees_and_that_have_not_joined_are_refused(monkeypatch):
    processes.check_joined()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ConfigError, match="devices of 4 processes, which have not joined: add --distributed"):
        processes.check_joined()


def test_gpus_of_a_slurm_job_that_no_process_holds_are_told(monkeypatch):
    assert processes.describe_processes(4) == []
    for name, value in {"GPUS_ON_NODE": "8", "STEP_NUM_NODES": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in {"process_count": 4, "device_count": 4, "default_backend": "gpu"}.items():
        monkeypatch.setattr(jax, name, lambda value=value: value)
    told = [
        "4 devices of 4 processes are used",
        "warning: 4 of 32 GPUs of this SLURM job are seen; start one",
    ]
    assert [
        line[: len(part)] for line, part in zip(processes.describe_processes(4), told, strict=True)
    ] == told
    monkeypatch.setattr(jax, "device_count", lambda: 32)
    assert processes.describe_processes(32) == ["32 devices of 4 processes are used"]


def by_flags(index, port):
    return [f"coordinator_address=localhost:{port}", "num_processes=2", f"process_id={index}"], {}


def by_mpirun(index, port):
    ranks = {f"OMPI_COMM_WORLD_{name}": str(index) for name in ("RANK", "LOCAL_RANK")}
    uri = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "JAX_COORDINATOR_PORT": str(port)}
    return [], {"OMPI_COMM_WORLD_SIZE": "2", **ranks, **uri}


def by_srun(index, port):
    step = {"JOB_ID": "7", "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": index, "LOCALID": index}
    return [], {"JAX_COORDINATOR_PORT": str(port), **{f"SLURM_{name}": str(step[name]) for name in step}}


@pytest.fixture
def run_in_two_processes(repository, unused_port):
    """Returns function of a workdir -> (exit codes, outputs) of two processes with one device each.

    They begin as `begin` tells, and `number` is the signal that the second gets at step 5.
    """
    forced = {"XLA_FLAGS": ONE_DEVICE, "JAX_PLATFORMS": "cpu"}

    def start(index, workdir, begin, number):
        flags, environment = begin(index, unused_port)
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(workdir), str(int(number)), *flags],
            env={**os.environ, **forced, "PYTHONPATH": str(repository), **environment},
            cwd=repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_both(workdir, begin=by_flags, number=signal.SIGTERM, of_the_second=None):
        folders = (workdir, of_the_second or workdir)
        workers = [start(index, folder, begin, number) for index, folder in enumerate(folders)]
        try:
            outputs = [worker.communicate(timeout=120)[0] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        return [worker.returncode for worker in workers], outputs

    return run_both


def step_where_both_stopped(codes, outputs):
    """Checks that both processes saved after the same step and left to be continued; returns the step."""
    assert codes == [75, 75], "\n".join(outputs)
    steps = [
        re.findall(r"stopped at step (\d+) and saved; .* run the same line again", text) for text in outputs
    ]
    assert steps[0] == steps[1] and len(steps[0]) == 1
    return int(steps[0][0])


def test_two_processes_of_which_one_gets_a_signal_stop_together_and_go_on_to_the_bits_of_one(
    whole, tmp_path, run_in_two_processes
):
    codes, outputs = run_in_two_processes(tmp_path, by_mpirun, signal.SIGHUP)
    stopped = step_where_both_stopped(codes, outputs)
    assert 5 < stopped < 12
    assert "2 devices of 2 processes are used" in outputs[0]
    state, meta = checkpoints.restore(tmp_path)
    assert meta["step"] == int(state.step) == stopped
    codes, outputs = run_in_two_processes(tmp_path)
    assert codes == [0, 0], "\n".join(outputs)
    assert f"continuing from step {stopped}" in outputs[0]
    first, second = (float(re.search(r"left at ([\d.]+)", text).group(1)) for text in outputs)
    assert abs(first - second) < 2  # the first has worked for 3 s more
    restored, meta = checkpoints.restore(tmp_path)
    assert_same_bits(restored, checkpoints.restore(whole[0])[0])
    assert meta["metrics"] == checkpoints.restore(whole[0])[1]["metrics"]
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_a_run_goes_from_one_device_to_two_processes_to_four_devices_with_the_same_bits(
    whole, tmp_path, run_in_two_processes, use_devices
):
    use_devices(1)
    with pytest.raises(interruption.Interrupted):
        run(tmp_path, stop=lambda step: step == 3)
    stopped = step_where_both_stopped(*run_in_two_processes(tmp_path, by_srun))
    assert checkpoints.restore(tmp_path)[1]["step"] == stopped
    use_devices(4)
    assert_same_bits(run(tmp_path), whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_processes_that_find_different_checkpoints_all_end_at_once_and_set_nothing_aside(
    tmp_path, run_in_two_processes
):
    with pytest.raises(interruption.Interrupted):
        run(tmp_path / "one", stop=lambda step: step == 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    flip_a_bit(tmp_path / "two" / "checkpoints" / "3")
    codes, outputs = run_in_two_processes(tmp_path / "one", of_the_second=tmp_path / "two")
    for code, output in zip(codes, outputs, strict=True):
        assert code != 0
        assert re.search(
            r"CheckpointError: .*process 0 from step 3, .*; process 1 from step 0, sha256 \w+ \(.*step 3 is damaged",
            output,
        ), output
    assert checkpoints.list_steps(tmp_path / "two") == [0, 3]


def test_a_process_that_lacks_a_session_folder_ends_the_others_with_its_words(
    tmp_path, repository, unused_port
):
    forced = {"XLA_FLAGS": ONE_DEVICE, "JAX_PLATFORMS": "cpu"}

    def start(index, sessions):
        flags, _ = by_flags(index, unused_port)
        line = ["train.py", "--config", "configs/polar.py:quick", "--workdir", str(tmp_path / "run")]
        line += [f"--config.data.sessions={sessions}", "--config.data.burn_in=6", "--config.data.predicted=4"]
        return subprocess.Popen(
            [sys.executable, *line, *(f"--{flag}" for flag in flags)],
            env={**os.environ, **forced},
            cwd=repository,
            stderr=subprocess.PIPE,
            text=True,
        )

    alpha = write_session(tmp_path / "alpha", arrays=session_arrays(), **fields())
    workers = [start(0, alpha), start(1, tmp_path / "elsewhere")]
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [4, 3], "\n".join(errors)
    assert re.search("process 1 could not begin, so none does: .*elsewhere", errors[0])
