import json

import pytest

from benchmarks import compile as benchmark
from polarjax.core import ConfigError, NumericError
from tests.benchmarks.test_step import TOY

MEASURED = {
    "trace_s": 1.0,
    "lower_s": 1.0,
    "compile_s": 9.0,
    "programs_after_step_1": 0,
    "step_memory_mb": 1.0,
}


def test_a_quick_form_compiles_once_and_nothing_after_the_first_step(capsys):
    benchmark.main(list(TOY))
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["programs_after_step_1"] == 0
    assert all(numbers[name] > 0 for name in ("trace_s", "lower_s", "compile_s", "step_memory_mb"))


def test_the_second_process_finds_the_program_in_the_cache(tmp_path, monkeypatch, capsys):
    asked = []

    def measured(name, cache):
        asked.append(cache)
        return {**MEASURED, "compile_s": 9.0 if len(asked) % 2 else 0.5}

    monkeypatch.setattr(benchmark, "_in_process_of_its_own", measured)
    benchmark.main(["--configs", "configs/polar.py:quick", "--json", str(tmp_path / "compile.json")])
    (row,) = json.loads((tmp_path / "compile.json").read_text())
    assert (row["compile_s"], row["cached_compile_s"]) == (9.0, 0.5)
    assert asked[0] == asked[1]
    assert "cached_compile_s" in capsys.readouterr().out


def test_a_program_that_is_compiled_after_the_first_step_is_an_error(monkeypatch):
    monkeypatch.setattr(
        benchmark, "_in_process_of_its_own", lambda *_: {**MEASURED, "programs_after_step_1": 3}
    )
    with pytest.raises(NumericError, match="3 programs were compiled after step 1; expected 0"):
        benchmark.measure_config("configs/polar.py:quick")


def test_overrides_of_many_configs_are_refused():
    with pytest.raises(ConfigError, match=r"--config\.seed needs --config"):
        benchmark.main(["--configs=configs/polar.py:quick", "--config.seed=1"])
