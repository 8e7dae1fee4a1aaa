import contextlib
import errno
import fcntl
import os
import re
import time

import pytest

from polarjax.core import CheckpointError, ConfigError, DataError
from polarjax.engine.workdir import claim
from tests.engine import toy
from tests.engine.runs import run


def test_another_config_is_refused_with_both_values(whole):
    with pytest.raises(
        ConfigError, match=r"config\.optim\.b1 is 0\.9 there and 0\.8 here.*another --workdir"
    ):
        run(whole[0], **{"optim.b1": 0.8})
    with pytest.raises(ConfigError, match=r"config\.optim\.groups\.core is 'absent' there and None here"):
        run(whole[0], **{"optim.groups.core": None})


def test_changed_data_are_refused_by_the_name_of_the_session(whole):
    with pytest.raises(DataError, match=r"the data of the run in .* have changed: session 'toy' is not what"):
        run(whole[0], data=toy.make_data(fingerprint="abd"))
    with pytest.raises(DataError, match=r"session 'one', 'toy', 'two' is not what"):
        run(whole[0], data=toy.make_data(sessions=("one", "two")))


def test_a_workdir_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match=rf"--workdir {workdir} cannot be written"):
            run(workdir)


def test_checkpoints_that_cannot_be_written_stop_the_run_before_its_first_step(tmp_path):
    (tmp_path / "below").write_text("")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "below")
    with pytest.raises(CheckpointError, match=r"checkpoints: a checkpoint cannot be written"):
        run(tmp_path)


def test_a_second_run_in_the_folder_is_refused_with_the_first_ones_host_and_process(tmp_path):
    data = toy.make_data()
    messages = []

    def train(step):
        if step == 3:
            with pytest.raises(CheckpointError) as error:
                run(tmp_path)
            messages.append(str(error.value))
        return data.train(step)

    run(tmp_path, data=data._replace(train=train))
    holder = (
        rf"is in use by process {os.getpid()} on {os.uname().nodename} for 0:00:\d\d; wait for it or choose"
    )
    assert re.search(holder + " another --workdir$", messages[0])


@contextlib.contextmanager
def held(workdir, holder):
    """Holds the lock of a folder in the name of a process."""
    workdir.mkdir()
    with open(workdir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(holder)
        lock.flush()
        yield
        assert not os.path.samestat(os.fstat(lock.fileno()), os.stat(workdir / "lock"))


def test_the_lock_of_another_machine_is_told_with_its_age_and_broken_when_asked_to(tmp_path):
    with held(tmp_path / "run", "process 12 on elsewhere"):
        os.utime(tmp_path / "run" / "lock", (0, time.time() - 7200))
        with pytest.raises(
            CheckpointError,
            match=r"process 12 on elsewhere for 2:00:0\d; wait .* is gone, .* add --break-lock",
        ):
            run(tmp_path / "run")
        with claim(tmp_path / "run", break_lock=True):
            assert (tmp_path / "run" / "lock").read_text().startswith(f"process {os.getpid()} on ")
            with pytest.raises(CheckpointError, match=rf"in use by process {os.getpid()} on"):
                claim(tmp_path / "run").__enter__()


def test_the_lock_of_a_process_that_lives_here_is_not_broken(tmp_path):
    with claim(tmp_path), pytest.raises(CheckpointError, match="another --workdir$"):
        claim(tmp_path, break_lock=True).__enter__()


def test_a_file_system_without_locks_is_named_and_used_without_when_asked_to(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("polarjax.engine.workdir.fcntl.flock", refuse)
    with pytest.raises(
        CheckpointError, match=r"without locks \(No locks available\).* --workdir elsewhere, .* --break-lock"
    ):
        run(tmp_path)
    with claim(tmp_path, break_lock=True):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
