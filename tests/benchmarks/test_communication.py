"""The prediction for many devices: times against a count by hand, and the table of the page."""

import pathlib

import pytest

from benchmarks import communication


def test_a_ring_of_two_sends_half_of_the_vector_twice():
    seconds = communication.ring_seconds(2, 100e9)
    assert seconds == pytest.approx(2 * (50e9 / communication.BANDWIDTH + communication.LATENCY))


def test_the_rows_of_a_batch_are_shared():
    alone = communication.BATCH * 1e9 / (communication.PEAK * communication.UTILISATION)
    assert communication.compute_seconds(1024, 1e9) == pytest.approx(alone / 1024)
    assert communication.BATCH % max(communication.DEVICES) == 0


def test_the_page_shows_what_the_command_prints(capsys):
    communication.main([])
    first, *table = capsys.readouterr().out.splitlines()
    page = (pathlib.Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    assert first.startswith("P = ") and len(table) == 1 + len(communication.DEVICES)
    assert [line for line in [first.split(" numbers")[0], *table] if line not in page] == []
