"""Logs on storage that refuses, fills up or goes stale: no error of it ends a run, and lost lines are told."""

import errno
import os

from polarjax.engine import logs
from polarjax.engine.writer import Writer
from tests.engine.runs import lines_of


def test_a_log_that_the_disk_refuses_keeps_its_lines_and_warns_once(tmp_path, monkeypatch, capsys):
    write, broken = os.write, [True]

    def refuse(descriptor, content):
        if broken[0] and content.startswith(b'{"step"'):
            write(descriptor, content[:5])
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(logs.os, "write", refuse)
    with Writer(tmp_path, start=0, total=10, primary=True) as writer:
        writer.write(1, {"train/loss": 0.5})
        writer.write(2, {"train/loss": 0.5})
        assert (tmp_path / "metrics.jsonl").read_text() == ""
        broken[0] = False
        writer.write(3, {"train/loss": 0.5})
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]
    assert capsys.readouterr().out.count("the log cannot be written (No space left on device)") == 1


def test_lines_that_wait_are_written_at_the_end_and_told_where_they_are_lost(tmp_path, monkeypatch, capsys):
    write, broken = os.write, [True]

    def refuse(descriptor, content):
        if broken[0] and content.startswith(b'{"step"'):
            raise OSError(30, "Read-only file system")
        return write(descriptor, content)

    monkeypatch.setattr(logs.os, "write", refuse)
    with Writer(tmp_path, start=0, total=10, primary=True) as writer:
        writer.write(1, {"train/loss": 0.5})
        broken[0] = False
    assert [line["step"] for line in lines_of(tmp_path)] == [1]
    assert "are lost" not in capsys.readouterr().out
    with Writer(tmp_path, start=1, total=10, primary=True) as writer:
        broken[0] = True
        writer.write(2, {"train/loss": 0.5})
        writer.write(3, {"train/loss": 0.5})
    assert [line["step"] for line in lines_of(tmp_path)] == [1]
    assert (
        "(Read-only file system); the lines that it lacks at its end are lost: free"
        in capsys.readouterr().out
    )


def test_a_log_on_storage_that_refuses_everything_raises_nothing_and_heals(tmp_path, monkeypatch):
    file = logs.LineFile(tmp_path / "log")
    assert file.append("whole\n") is None
    with monkeypatch.context() as stale:
        for name in ("fstat", "ftruncate"):
            stale.setattr(logs.os, name, raise_stale)
        assert file.append("one\n").errno == errno.ESTALE
    with monkeypatch.context() as stale:
        stale.setattr(logs.os, "ftruncate", raise_stale)
        stale.setattr(logs.os, "write", part_of)
        assert file.append("two\n").errno == errno.ESTALE
    assert (tmp_path / "log").read_text() == "whole\non"
    assert file.append("three\n") is None
    assert (tmp_path / "log").read_text() == "whole\none\ntwo\nthree\n"
    assert file.close() is None


def raise_stale(*arguments):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def part_of(descriptor, content, write=os.write):
    """Writes two bytes of a line, and is refused."""
    write(descriptor, content[:2])
    raise_stale()


def test_a_file_of_tensorboard_ends_at_the_first_error_which_is_told(capsys):
    file = logs.EventFile("polarjax:/dev/full")
    for _ in range(2):
        file.write(b"event")
        file.flush()
    file.close()
    assert capsys.readouterr().err == (
        "warning: /dev/full: cannot be written for TensorBoard (No space left on device); "
        "training goes on, metrics.jsonl has it all\n"
    )
