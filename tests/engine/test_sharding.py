"""Devices and processes: meshes, and how a batch is shared."""

import os
import subprocess
import sys

import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.engine import sharding


def test_a_micro_batch_is_of_contiguous_rows_and_lies_whole_on_one_device():
    request = {"start": np.arange(16, dtype=np.int32)}
    mesh = sharding.make_mesh(8)
    placed = sharding.put_request(request, mesh, batch_size=16, micro_batches=8)["start"]
    np.testing.assert_array_equal(placed, np.arange(16).reshape(8, 2))
    assert [shard.data.tolist() for shard in placed.addressable_shards][1] == [[4, 5], [6, 7]]


def refused(call, message, **numbers):
    with pytest.raises(ConfigError, match=message):
        call(**numbers)


@pytest.mark.parametrize(
    ("micro_batches", "devices", "used"),
    [(4, 8, 4), (3, 4, 3), (2, 4, 2), (1, 8, 1), (6, 4, 3), (8, 3, 2), (7, 4, 1)],
)
def test_one_process_uses_the_most_devices_that_share_the_micro_batches_evenly(micro_batches, devices, used):
    assert sharding.count_devices(micro_batches, devices=devices, processes=1) == used


@pytest.mark.parametrize(("micro_batches", "nearest"), [(6, "s are 4 and 8"), (2, " is 4")])
def test_several_processes_that_cannot_use_all_devices_are_refused_with_the_nearest_numbers(
    micro_batches, nearest
):
    message = (
        rf"config\.optim\.micro_batches is {micro_batches}, which 4 devices of 2 processes cannot share: .* "
        rf"a multiple of 4; the nearest valid value{nearest}$"
    )
    refused(sharding.count_devices, message, micro_batches=micro_batches, devices=4, processes=2)
    assert sharding.count_devices(8, devices=4, processes=2) == 4


def test_a_batch_that_its_micro_batches_cannot_share_is_refused_with_the_nearest_that_they_can():
    message = (
        r"config\.data\.batch_size is 30, which config\.optim\.micro_batches = 4 of 3 sessions cannot share: "
        r"it must be a multiple of 12; the nearest valid values are 24 and 36$"
    )
    refused(sharding.check_sharing, message, batch_size=30, micro_batches=4, sessions=3)


def test_a_line_tells_that_devices_stay_idle():
    assert sharding.describe_mesh(sharding.make_mesh(3), 3) == [
        "3 of 4 devices are used: config.optim.micro_batches is 3"
    ]
    assert sharding.describe_mesh(sharding.make_mesh(4), 4) == []


@pytest.mark.parametrize(("flags", "expected"), [("", 2), ("--xla_force_host_platform_device_count=3", 3)])
def test_each_core_is_a_device_as_far_as_cores_share_the_micro_batches(flags, expected):
    program = """
import os
os.sched_getaffinity = lambda process: range(3)
from polarjax.engine import sharding
import jax
sharding.use_cores(4)
print(jax.device_count())
sharding.use_cores(1)  # too late: nothing happens
"""
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(expected)]
