"""The table of faults: each is answered by one message that names the fault, and by the exit code of its class."""

import re

import pytest

from tests.faults import command_rows, data_rows, process_rows, run_rows, settings_rows, training_rows
from tests.faults.place import Place, answer

ROWS = [
    *data_rows.ROWS,
    *settings_rows.ROWS,
    *training_rows.ROWS,
    *run_rows.ROWS,
    *process_rows.ROWS,
    *command_rows.ROWS,
]


@pytest.fixture
def place(tmp_path, monkeypatch, capfd):
    """The folder of a row."""
    return Place(tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("action", "code", "message"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_fault_is_answered_with_its_message_and_its_exit_code(place, action, code, message):
    found, text = answer(action, place)
    assert found == code, text
    assert re.search(message, text, re.DOTALL), text


def test_every_row_has_its_own_name():
    names = [row[0] for row in ROWS]
    assert len(names) == len(set(names)) > 80
