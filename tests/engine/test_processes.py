"""Several processes of one run: they train, evaluate, save, stop and go on as one does."""

import os
import re
import subprocess
import sys

import pytest

from polarjax.engine import checkpoints, interruption
from tests.engine.runs import assert_same_bits, lines_of, run, without_times

WORKER = """
import os, signal, sys, time
from polarjax.engine import interruption, loop, sharding
sharding.initialize_distributed(dict(coordinator_address=sys.argv[3], num_processes="2", process_id=sys.argv[1]))
import jax
from tests.engine import toy
assert jax.process_count() == jax.device_count() == 2
data = toy.make_data()

def train(step):
    if step == 5 and jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if step in range(5, 9):
        time.sleep(0.3)  # the processes need a moment to agree on the step after which both stop
    return data.train(step)

try:
    with interruption.watch_signals() as stop:
        loop.train(toy.make_config(), toy.make_system(), data._replace(train=train), sys.argv[2], stop=stop)
except interruption.Interrupted as interrupted:
    print(interrupted, flush=True)
    sys.exit(interrupted.exit_code)
"""


@pytest.fixture
def run_in_two_processes(repository, unused_port):
    """Returns workdir -> (exit codes, outputs) of two processes with one device each, always of the same line."""
    forced = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **forced, "PYTHONPATH": str(repository)}

    def start(index, workdir):
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(index), str(workdir), f"localhost:{unused_port}"],
            env=environment,
            cwd=repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_both(workdir):
        workers = [start(index, workdir) for index in range(2)]
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
    stopped = step_where_both_stopped(*run_in_two_processes(tmp_path))
    assert 5 < stopped < 12
    state, meta = checkpoints.restore(tmp_path)
    assert meta["step"] == int(state.step) == stopped
    codes, outputs = run_in_two_processes(tmp_path)
    assert codes == [0, 0], "\n".join(outputs)
    assert f"continuing from step {stopped}" in outputs[0]
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
    stopped = step_where_both_stopped(*run_in_two_processes(tmp_path))
    assert checkpoints.restore(tmp_path)[1]["step"] == stopped
    use_devices(4)
    assert_same_bits(run(tmp_path), whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))
