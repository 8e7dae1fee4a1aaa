"""What the benchmarks share: flags, environments, times in turn, tables."""

import json
import os
import sys

import pytest

from benchmarks import measure
from polarjax.core import ConfigError
from polarjax.engine.cpu_flags import CPU_FLAGS


def test_a_count_is_read_and_a_wrong_one_is_named():
    assert measure.whole_number({"steps": "7"}, "steps", 20) == 7
    assert measure.whole_number({}, "steps", 20) == 20
    with pytest.raises(ConfigError, match="--steps is '0'; expected a whole number of at least 1"):
        measure.whole_number({"steps": "0"}, "steps", 20)


def test_names_are_chosen_and_an_unknown_one_is_named():
    assert measure.chosen({"rows": "b, a"}, "rows", ("a", "b")) == ["b", "a"]
    assert measure.chosen({}, "rows", ("a", "b")) == ["a", "b"]
    with pytest.raises(ConfigError, match="--rows names 'c'; allowed are a, b"):
        measure.chosen({"rows": "a,c"}, "rows", ("a", "b"))


def test_both_sides_of_a_comparison_have_the_same_allocator_and_all_cores(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "8")
    environment = measure.fair_environment(cores_as_devices=True)
    assert environment["MALLOC_MMAP_MAX_"] == "0"
    assert f"device_count={os.cpu_count()}" in environment["XLA_FLAGS"]
    assert all(flag in environment["XLA_FLAGS"] for flag in CPU_FLAGS)
    assert "device_count" not in measure.fair_environment(cores_as_devices=False)["XLA_FLAGS"]


def test_a_program_restarts_in_another_environment_and_only_then(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "benchmarks.step"])
    measure.restart_in(dict(os.environ))
    assert started == []
    measure.restart_in({"A": "1"})
    assert started == [(sys.executable, [sys.executable, "-m", "benchmarks.step"], {"A": "1"})]


def test_functions_are_called_in_turn():
    called = []
    functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = measure.in_turn(functions, 2)
    assert called == ["a", "b", "a", "b"]
    assert all(len(part) == 2 for one in times.values() for part in one)
    called.clear()
    times = measure.in_turn(functions, 2, untimed=1)
    assert called == ["a", "a", "b", "b"] * 2
    assert all(len(part) == 2 for one in times.values() for part in one)


def test_a_disturbed_round_does_not_move_the_ratio():
    assert measure.median_ratio([10.0, 30.0, 10.0], [1.0, 3.0, 100.0]) == 10.0


def test_a_table_has_a_line_a_row_and_a_dash_where_there_is_no_number(capsys):
    measure.print_table([{"config": "a", "ratio": 2.5}, {"config": "b", "ratio": None}], ("config", "ratio"))
    assert capsys.readouterr().out.splitlines() == ["config  ratio", "a        2.50", "b           -"]


def test_the_json_is_written_where_it_is_asked_for(tmp_path):
    measure.write_json({}, [1])
    measure.write_json({"json": str(tmp_path / "numbers.json")}, [{"a": 1}])
    assert json.loads((tmp_path / "numbers.json").read_text()) == [{"a": 1}]


def test_an_error_is_one_line_and_its_exit_code(capsys):
    def wrong(arguments):
        raise ConfigError("so wrong")

    with pytest.raises(SystemExit) as leaving:
        measure.run(wrong)
    assert (leaving.value.code, capsys.readouterr().err) == (2, "error: so wrong\n")
