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


def test_a_micro_batch_is_of_contiguous_rows_and_lies_whole_on_one_device():
    request = {"start": np.arange(16, dtype=np.int32)}
    mesh = sharding.make_mesh()
    placed = sharding.put_request(request, mesh, batch_size=16, micro_batches=8)["start"]
    np.testing.assert_array_equal(placed, np.arange(16).reshape(8, 2))
    assert [shard.data.tolist() for shard in placed.addressable_shards][1] == [[4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            {"batch_size": 8, "micro_batches": 6, "devices": 4, "sessions": 1},
            r"config\.optim\.micro_batches is 6, which 4 devices cannot share: .* a multiple of 4; "
            r"the nearest valid values are 4 and 8$",
        ),
        (
            {"batch_size": 8, "micro_batches": 1, "devices": 2, "sessions": 1},
            r"micro_batches is 1, which 2 devices .* the nearest valid value is 2$",
        ),
        (
            {"batch_size": 30, "micro_batches": 4, "devices": 2, "sessions": 3},
            r"config\.data\.batch_size is 30, which config\.optim\.micro_batches = 4 of 3 sessions cannot share: "
            r"it must be a multiple of 12; the nearest valid values are 24 and 36$",
        ),
    ],
)
def test_numbers_that_do_not_go_into_each_other_are_refused_with_the_nearest_that_do(numbers, message):
    with pytest.raises(ConfigError, match=message):
        sharding.check_sharing(**numbers)
