"""What is compared between processes, with the answers of the others made up."""

import copy

import pytest

from polarjax.core import CheckpointError, ConfigError, DataError
from polarjax.engine import agreement, workdir
from tests.engine import toy


@pytest.fixture
def answer(monkeypatch):
    """Sets what the second of two processes tells where this one, the first, tells a value."""

    def set_answer(change):
        for module in (agreement, workdir):
            monkeypatch.setattr(module, "gather", lambda value: [value, change(copy.deepcopy(value))])

    return set_answer


def described():
    return workdir.describe_run(toy.make_config(), toy.make_data().info)


def test_processes_of_the_same_line_and_data_go_on_together(answer, tmp_path):
    answer(lambda value: value)
    workdir.refuse_unlike_processes(described())
    agreement.begin_together(tmp_path, "step 4", [])
    with agreement.fail_together():
        pass


def test_a_process_with_another_config_is_named_with_both_values(answer):
    def change(value):
        value["config"]["train.log_every"] = 7
        return value

    answer(change)
    with pytest.raises(
        ConfigError, match=r"config\.train\.log_every is 2 in process 0 and 7 in process 1; start all with"
    ):
        workdir.refuse_unlike_processes(described())


def test_a_process_with_other_data_is_named_with_the_session(answer):
    answer(lambda value: {**value, "data": {"toy": "abd"}})
    with pytest.raises(DataError, match=r"session 'toy' of process 1 is not what process 0 reads; give all"):
        workdir.refuse_unlike_processes(described())


def test_processes_that_would_go_on_from_different_checkpoints_are_refused(answer, tmp_path):
    answer(lambda value: ["step 4, sha256 1", ["step 8 is damaged"]])
    with pytest.raises(
        CheckpointError,
        match=r"process 0 from step 8, sha256 2; process 1 from step 4, sha256 1 \(step 8 is damaged\)\. Give",
    ):
        agreement.begin_together(tmp_path, "step 8, sha256 2", [])


def test_the_error_of_one_process_ends_the_others_too(answer):
    answer(lambda value: "the disk is gone")
    with (
        pytest.raises(CheckpointError, match="process 1 could not begin, so none does: the disk is gone"),
        agreement.fail_together(),
    ):
        pass
    with pytest.raises(DataError, match="mine"), agreement.fail_together():
        raise DataError("mine")


def test_processes_that_copy_other_values_from_a_trained_run_are_refused(answer):
    source = {"step": 400, "digest": "0123456789"}
    answer(lambda value: value)
    agreement.start_together("runs/pretrained", source)
    answer(lambda value: [value[0], "9876543210"])
    with pytest.raises(
        CheckpointError,
        match=r"config\.init_from runs/pretrained is not the same everywhere: process 0 finds step 400 "
        r"\(sha256 01234567\), process 1 finds step 400 \(sha256 98765432\)\. Give all machines",
    ):
        agreement.start_together("runs/pretrained", source)
