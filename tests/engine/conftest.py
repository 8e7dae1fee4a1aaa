import pathlib
import socket

import pytest

from tests.engine.runs import run


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
