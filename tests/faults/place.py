"""Where a row of the table does its damage: a folder, small sessions, runs of the toy system."""

import ml_collections
import numpy as np

from polarjax import data
from polarjax.core import PolarjaxError
from polarjax.data.sessions import open_session, write_session
from polarjax.engine import checkpoints, interruption
from tests.data.conftest import data_section, fields, session_arrays
from tests.engine import runs

ALL_VALID = np.ones((180, 3), bool)


class Place:
    """A folder of one row, with what its action needs."""

    def __init__(self, folder, monkeypatch, capfd):
        self.folder, self.monkeypatch, self._capfd = folder, monkeypatch, capfd

    def write(self, name="alpha", *, given=None, **arrays):
        """Writes a session of 180 frames and 3 units, some arrays replaced, and returns its folder."""
        arrays = session_arrays() | arrays
        return write_session(self.folder / name, arrays=arrays, **(fields(name) | (given or {})))

    def notes(self, **arrays):
        """Writes a session and returns what its reader is told."""
        return "; ".join(open_session(self.write(**arrays)).notes)

    def section(self, *folders, **changes):
        """Returns config.data of sessions."""
        section = data_section(folders, self.folder / "cache", **changes)
        return ml_collections.ConfigDict(section)

    def build(self, *folders, **changes):
        """Builds the batches of sessions."""
        return data.build(self.section(*folders, **changes))

    def run(self, **options):
        """Trains the toy system in the folder; returns what was printed."""
        self.state = runs.run(self.folder / "run", **options)
        return self.printed()

    def stop(self, at, **options):
        """Trains the toy system and interrupts it after a step."""
        try:
            self.run(stop=lambda step: step == at, **options)
        except interruption.Interrupted:
            return self.folder / "run" / "checkpoints" / str(at)
        raise AssertionError("the run was not interrupted")

    def warnings(self, logger):
        """Returns the list of the warnings that a logger gives from now on."""
        told = []
        self.monkeypatch.setattr(logger, "warning", told.append)
        return told

    def steps(self):
        """Returns the steps that have a checkpoint."""
        return checkpoints.list_steps(self.folder / "run")

    def printed(self):
        """Returns what was printed since the last call."""
        captured = self._capfd.readouterr()
        return captured.out + captured.err


def answer(action, place):
    """Returns the exit code and the one message of an action; code 0 and what it returns where nothing is wrong."""
    try:
        return 0, str(action(place))
    except PolarjaxError as error:
        return error.exit_code, str(error)
