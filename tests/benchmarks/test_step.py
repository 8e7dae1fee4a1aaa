"""The benchmark of train steps: one config, and our side of the comparison; PyTorch is not needed here."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import cases, comparison, peak_memory, step
from polarjax.core import ConfigError

TOY = (
    *(
        "--config",
        "configs/polar.py:quick",
        "--config.data.virtual.minutes=0.5",
        "--config.data.batch_size=8",
    ),
    *("--config.data.burn_in=2", "--config.data.predicted=2", "--config.model.kwargs.n_levels=1"),
    *("--config.model.kwargs.n_pairs=2", "--config.model.kwargs.kernel_size=3"),
    "--config.model.kwargs.code_width=4",
)


def test_a_config_is_timed_and_written(tmp_path, capsys):
    step.main([*TOY, "--steps", "2", "--json", str(tmp_path / "step.json")])
    numbers = json.loads((tmp_path / "step.json").read_text())
    assert numbers["config"] == "configs/polar.py:quick"
    assert numbers["step_ms"] > 0 and numbers["predicted_bins_per_s"] > 0 and numbers["step_memory_mb"] > 0
    assert "predicted_bins_per_s" in capsys.readouterr().out


def test_without_pytorch_the_comparison_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[torch\]'"):
        step.main([])


def test_an_unknown_row_is_named(monkeypatch):
    monkeypatch.setattr(comparison, "check_torch", lambda: None)
    with pytest.raises(ConfigError, match="--rows names 'relax'; allowed are relaxed, behavior_only"):
        step.main(["--rows", "relax"])


def test_the_rows_of_a_comparison_become_a_table_a_file_and_a_figure(tmp_path, monkeypatch, capsys):
    row = dict.fromkeys(comparison.COLUMNS, 2.0)
    monkeypatch.setattr(comparison, "check_torch", lambda: None)
    monkeypatch.setattr(comparison.floors, "measure_peaks", lambda *sizes: comparison.floors.Peaks(1e9, 1e9))
    monkeypatch.setattr(
        comparison, "measure_row", lambda case, *rest, **options: {**row, "config": case.name, "batch": 8}
    )
    monkeypatch.setattr(
        peak_memory,
        "measure_child",
        lambda name, side, **_: {"baseline_mb": 100.0, "peak_mb": {"ours": 110.0, "torch": 200.0}[side]},
    )
    files = {name: tmp_path / f"rows.{name}" for name in ("json", "png")}
    step.main(["--rows", "minimal,default", "--json", str(files["json"]), "--plot", str(files["png"])])
    rows = json.loads(files["json"].read_text())
    assert [written["config"] for written in rows] == ["minimal", "default"]
    assert rows[0]["memory_ratio"] == 10.0
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in table] == ["config", "minimal", "default"]


@pytest.mark.parametrize("name", cases.CASES)
def test_our_side_of_a_row_has_the_options_of_what_it_stands_for(name):
    case, model = cases.CASES[name], cases.make_model(cases.CASES[name])
    reference = case.predicted == 1 and case.twin != "default"
    dense = name in ("default", "segments_dense")
    assert model.filters == ("dense" if dense else "separable")
    assert model.dynamics == (
        "recurrent" if not reference else "none" if case.twin == "minimal" else "framewise"
    )
    assert (model.n_pairs, model.kernel_size) == (case.sizes.n_pairs, case.sizes.kernel_size)
    assert max(model.n_units) == 100 and case.frames == (25 if case.predicted == 1 else 120)


def test_our_side_of_a_small_row_trains():
    sizes = cases.Sizes(n_levels=1, n_pairs=2, kernel_size=3, n_units=4, side=12)
    case = dataclasses.replace(
        cases.small(cases.CASES["minimal"]), batch=jax.device_count(), sizes=sizes, burn_in=2
    )
    variables = cases.initial_variables(case)
    ours = cases.compile_step(case, variables)
    losses = [float(ours.run()["train/loss"]) for _ in range(3)]
    assert np.isfinite(losses).all() and losses[2] < losses[0]
    batch = cases.make_batch(case, case.frames, case.predicted)
    loss, gradients = cases.loss_and_gradients(case, variables, batch)  # what a twin in PyTorch is held to
    assert losses[0] == pytest.approx(loss, rel=1e-5)
    assert 0 < cases.gradient_norm(gradients) < np.inf


def test_the_peak_is_that_of_what_came_after_the_baseline():
    big = np.ones(2**25, np.uint8)
    del big
    baseline = peak_memory.settle()
    held = np.ones(2**26, np.uint8)
    assert 60 < peak_memory.peak() - baseline < 90
    assert held[-1] == 1
