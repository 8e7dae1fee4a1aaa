import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.engine import sharding


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
        sharding.initialize_distributed(flags)


def test_a_single_process_starts_nothing(monkeypatch):
    for name in ("SLURM_NTASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax.distributed.initialize", lambda *args, **kwargs: pytest.fail("started"))
    sharding.initialize_distributed({})


@pytest.mark.parametrize(
    "environment", [{"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, {"TPU_WORKER_HOSTNAMES": "host0,host1"}]
)
def test_the_processes_of_a_cluster_find_each_other(monkeypatch, environment):
    started = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *args, **kwargs: started.append(args))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sharding.initialize_distributed({})
    assert started == [()]


def test_a_micro_batch_is_of_contiguous_rows_and_every_device_holds_some_of_each():
    request = {"start": np.arange(16, dtype=np.int32)}
    placed = sharding.put_request(request, sharding.make_mesh(), micro_batches=2)["start"]
    np.testing.assert_array_equal(placed, np.arange(16).reshape(2, 8))
    assert [shard.data.tolist() for shard in placed.addressable_shards][1] == [[2, 3], [10, 11]]
