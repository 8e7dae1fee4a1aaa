import pytest

from polarjax.engine import interruption
from polarjax.engine.clock import CAUSES, Clock
from polarjax.engine.compilation import ProgramCount
from tests.engine.runs import kill, lines_of, run


@pytest.fixture
def now(monkeypatch):
    """The time: now[0] can be set."""
    seconds = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def test_pauses_are_no_part_of_the_speed(now):
    clock = Clock()
    now[0] = 1.0
    clock.count(0.5, device_idle=True)
    with clock.pause(), clock.spend("evaluation"):
        now[0] = 9.0
    now[0] = 10.0
    clock.count(1.0, device_idle=False)
    assert clock.take(8) == {
        "time/samples_per_second": 8.0,
        "time/data_wait": 0.25,
        "time/step_median_ms": 1000.0,
        "time/step_p99_ms": 1000.0,
        "time/repeated_steps": 0,
        **dict.fromkeys([f"time/{cause}_share" for cause in CAUSES], 0.0),
        "time/training_share": 0.15,
        "time/data_share": 0.05,
        "time/evaluation_share": 0.8,
    }


def test_time_inside_two_causes_counts_for_the_inner_one(now):
    clock = Clock()
    with clock.spend("evaluation"):
        now[0] = 1.0
        clock.timed("compile", lambda seconds: now.__setitem__(0, seconds))(4.0)
        clock.add("compile", 1.0)
        now[0] = 10.0
    shares = clock.shares()
    assert (shares["compile"], shares["evaluation"]) == (0.4, 0.6)
    assert sum(shares.values()) == 1.0


def test_steps_that_are_trained_again_are_counted_apart_and_the_rest_is_named_other(now):
    clock, said = Clock(), []
    now[0] = 2.0
    with clock.told_to(said.append):
        clock.restart()
        for again in (True, True, False, False):
            now[0] += 1.0
            clock.count(0.5, device_idle=True, again=again)
    assert said == [
        "time: training 16.7%, compile 0.0%, data 33.3%, checkpoint 0.0%, restore 0.0%, evaluation 0.0%, "
        "repeated 16.7%, other 33.3% of 6.0 s; 2 steps were trained again"
    ]


def test_a_run_without_steps_says_nothing(now):
    said = []
    with Clock().told_to(said.append):
        now[0] = 1.0
    assert said == []


def test_an_interrupted_evaluation_is_no_training(now):
    clock, said = Clock(), []
    with pytest.raises(interruption.Interrupted), clock.told_to(said.append):
        now[0] = 1.0
        clock.count(0.0, device_idle=True)
        with clock.pause(), clock.spend("evaluation"):
            now[0] = 4.0
            raise interruption.Interrupted
    assert said[0].startswith("time: training 25.0%,") and "evaluation 75.0%" in said[0]


def test_programs_tell_how_long_they_took_to_compile():
    seconds = []
    listened = ProgramCount(seconds.append)
    listened._listen("/jax/core/compile/backend_compile_duration", 1.5)
    listened._listen("/jax/core/compile/jaxpr_trace_duration", 9.0)
    assert seconds == [1.5] and listened.take() == {"time/compiled_programs": 1}


def test_a_run_that_was_killed_tells_at_its_end_where_the_time_went_and_what_was_lost(tmp_path, capsys):
    kill(tmp_path)
    assert [line["step"] for line in lines_of(tmp_path)] == [2, 4, 6]
    capsys.readouterr()
    run(tmp_path)
    (summary,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time: training ")]
    assert summary.endswith(" s; 2 steps were trained again")
    lines = lines_of(tmp_path)[2:]
    assert [line["time/repeated_steps"] for line in lines] == [2, 2, 2, 2]
    for line in lines:
        shares = {cause: line[f"time/{cause}_share"] for cause in ("training", *CAUSES)}
        assert min(shares.values()) >= 0 and sum(shares.values()) <= 1.0
        assert min(shares[cause] for cause in ("training", "compile", "restore", "repeated")) > 0
    assert lines[0]["time/evaluation_share"] == 0 < lines[-1]["time/evaluation_share"]
    assert lines[0]["time/checkpoint_share"] == 0 < lines[-1]["time/checkpoint_share"]
