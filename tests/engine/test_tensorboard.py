"""What TensorBoard shows of a run that was interrupted is what it shows of one that was not."""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from polarjax.engine import interruption, logs
from tests.engine.runs import kill, lines_of, run

HEAD, CHECK = (
    struct.Struct("<QI"),
    4,
)  # length and its check sum, before the bytes of an event; that of the bytes after


def events_of(path):
    """Yields the events of a file."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        length, _ = HEAD.unpack_from(content, place)
        place += HEAD.size
        yield Event.FromString(content[place : place + length])
        place += length + CHECK
    assert place == len(content)


def shown(workdir):
    """Returns {(name, step): value} as TensorBoard does, which drops at a restart the steps that come again."""
    values = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in events_of(path):
            if event.session_log.status == SessionLog.START:
                values = {key: value for key, value in values.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in values, "shown twice"
                values[value.tag, event.step] = value.simple_value
    return {key: value for key, value in values.items() if not key[0].startswith("time/")}


def interrupt(workdir):
    with pytest.raises(interruption.Interrupted):
        run(workdir, stop=lambda step: step == 5)


def interrupt_at_an_evaluation(workdir):
    with pytest.raises(interruption.Interrupted):
        run(workdir, stop=lambda step: step == 8)


def kill_after_a_log_line_that_no_checkpoint_has(workdir):
    kill(workdir)
    assert max(step for _, step in shown(workdir)) == 6


def test_the_numbers_of_a_whole_run_are_those_of_its_log(whole):
    lines = {line.pop("step"): line for line in lines_of(whole[0])}
    numbers = {
        (name, step): value
        for step, line in lines.items()
        for name, value in line.items()
        if not name.startswith("time/") and not isinstance(value, list)
    }
    assert shown(whole[0]) == {key: pytest.approx(value) for key, value in numbers.items()}
    assert {step for _, step in numbers} == {2, 4, 6, 8, 10, 12}


@pytest.mark.parametrize(
    "end", [interrupt, interrupt_at_an_evaluation, kill_after_a_log_line_that_no_checkpoint_has]
)
def test_a_resumed_run_shows_every_step_once_and_the_numbers_of_one_that_was_never_interrupted(
    whole, tmp_path, end
):
    end(tmp_path)
    run(tmp_path)
    assert shown(tmp_path) == shown(whole[0])


def test_a_part_of_a_run_that_begins_in_the_same_second_leaves_the_events_of_the_part_before(tmp_path):
    for content in (b"before", b"after"):
        file = logs.EventFile(f"polarjax:{tmp_path}/events")
        file.write(content)
        file.close()
    assert (tmp_path / "events").read_bytes() == b"beforeafter"
