"""Runs of the toy system, and how two of them are compared."""

import json

import numpy as np
import pytest

from polarjax.engine import loop
from polarjax.engine.sharding import make_mesh
from polarjax.engine.state import flatten
from tests.engine import toy


def run(workdir, *, stop=None, data=None, system=None, allowed_changes=(), **overrides):
    config = toy.make_config(**overrides)
    data = data or toy.make_data(config.data.batch_size)
    return loop.train(
        config, system or toy.make_system(), data, workdir, stop=stop, allowed_changes=allowed_changes
    )


class Killed(BaseException):
    """What no handler of errors catches."""


def kill(workdir, *, at=7, **options):
    """Runs until the batch of a step is asked for, and ends there as by a kill."""
    data = toy.make_data()

    def train(step):
        if step == at:
            raise Killed
        return data.train(step)

    with pytest.raises(Killed):
        run(workdir, data=data._replace(train=train), **options)


def mesh_of(count):
    """Returns the mesh of the first devices."""
    return make_mesh(count)


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(lines):
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def assert_same_bits(left, right):
    left, right = flatten(left), flatten(right)
    assert left.keys() == right.keys()
    for path in left:
        assert np.asarray(left[path]).tobytes() == np.asarray(right[path]).tobytes(), path


def flip_a_bit(folder):
    """Damages every file of the arrays' values."""
    for path in (folder / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
