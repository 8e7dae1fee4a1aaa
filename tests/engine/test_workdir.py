import os

import pytest

from polarjax.core import CheckpointError, ConfigError, DataError
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
    assert f"is in use by process {os.getpid()} on {os.uname().nodename}; wait for it" in messages[0]
