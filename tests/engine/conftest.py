import pathlib
import socket

import pytest

from polarjax.engine import sharding
from tests.engine.runs import mesh_of, run


@pytest.fixture
def unused_port():
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def repository():
    """The root of the repository."""
    return pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that nothing interrupted: its folder and its last state."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, run(workdir)


@pytest.fixture
def use_devices(monkeypatch):
    """Lets the runs that follow see only so many of the devices."""

    def use(count):
        mesh = mesh_of(count)
        monkeypatch.setattr(sharding, "make_mesh", lambda micro_batches: mesh)

    return use
