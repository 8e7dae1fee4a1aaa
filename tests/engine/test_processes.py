"""Several processes of one run: they train, evaluate, save and stop as one does."""

import os
import subprocess
import sys

import pytest

from polarjax.engine import checkpoints, interruption
from tests.engine.runs import assert_same_bits, lines_of, run, without_times

WORKER = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from polarjax.engine import interruption, loop, sharding
sharding.initialize_distributed(dict(coordinator_address={address!r}, num_processes="2", process_id=sys.argv[1]))
import jax
from tests.engine import toy
assert jax.process_count() == jax.device_count() == 2
data = toy.make_data()

def train(step):
    if step == 5 and jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if step >= 5:
        time.sleep(0.3)  # the processes need a moment to agree on the step after which both stop
    return data.train(step)

try:
    with interruption.watch_signals() as stop:
        loop.train(toy.make_config(), toy.make_system(), data._replace(train=train), sys.argv[2], stop=stop)
except interruption.Interrupted as interrupted:
    print(interrupted, flush=True)
    code = interrupted.exit_code
else:
    code = 0
jax.distributed.shutdown()
sys.exit(code)
"""


def start(index, workdir, source, repository):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", source, str(index), str(workdir)],
        env=environment,
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_goes_from_one_device_to_two_processes_to_four_devices_with_the_same_bits(
    whole, tmp_path, unused_port, repository, use_devices
):
    workdir, source = (
        tmp_path / "run",
        WORKER.format(root=str(repository), address=f"localhost:{unused_port}"),
    )
    use_devices(1)
    with pytest.raises(interruption.Interrupted):
        run(workdir, stop=lambda step: step == 3)
    workers = [start(index, workdir, source, repository) for index in range(2)]
    try:
        outputs = [worker.communicate(timeout=80)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [75, 75], "\n".join(outputs)
    stopped = checkpoints.restore(workdir)[1]["step"]
    assert 5 < stopped < 12
    assert f"stopped at step {stopped} and saved" in outputs[0]
    use_devices(4)
    assert_same_bits(run(workdir), whole[1])
    assert without_times(lines_of(workdir)) == without_times(lines_of(whole[0]))
