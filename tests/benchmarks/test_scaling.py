import json

import jax
import numpy as np
import pytest

from benchmarks import cases, scaling
from polarjax.core import ConfigError

SIZES = cases.Sizes(1, 2, 3, 2, 8)


def test_the_exponent_of_a_power_is_found_and_what_does_not_grow_is_left_behind():
    n = np.array([1, 10, 100, 1000, 10000])
    assert scaling.exponent(n, 3 * n**1.5) == pytest.approx(1.5)
    assert scaling.exponent(n, 5 + n) == pytest.approx(1.0, abs=0.02)


def test_a_point_changes_one_size():
    assert scaling.point_case("pairs", 32).sizes.n_pairs == 32
    assert scaling.point_case("frames", 64).frames == 64
    assert scaling.point_case("sessions", 4).sessions == 4
    assert (
        scaling.point_case("devices", 1).micro_batches == scaling.point_case("devices", 2).micro_batches == 2
    )


def test_the_number_of_devices_replaces_another(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1 --xla_force_host_platform_device_count=4")
    flags = scaling.environment_with(2)["XLA_FLAGS"].split()
    assert flags == ["--xla_other=1", "--xla_force_host_platform_device_count=2"]


def test_a_small_axis_is_measured_drawn_and_written(tmp_path, monkeypatch, capsys):
    base = cases.Case("scaling", "minimal", {}, SIZES, jax.device_count(), 1, 1)
    monkeypatch.setitem(scaling.AXES, "units", (2, 8))
    monkeypatch.setattr(scaling.point_case, "__defaults__", (base,))
    files = {name: tmp_path / f"scaling.{name}" for name in ("json", "png")}
    scaling.main(["--axes=units", "--steps=2", f"--json={files['json']}", f"--plot={files['png']}"])
    rows = json.loads(files["json"].read_text())
    assert [(row["axis"], row["value"]) for row in rows] == [("units", 2), ("units", 8)]
    assert rows[0]["relative"] == 1 and np.isfinite(rows[1]["exponent"])
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert "units: exponent" in capsys.readouterr().out


def test_devices_are_measured_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(scaling, "_in_process_of_its_own", lambda axis, value, steps: 1.0 / value)
    rows = scaling.measure_axis("devices", (1, 2), 3)
    assert rows[1]["relative"] == 0.5 and rows[0]["exponent"] == pytest.approx(-1)


def test_a_wrong_point_is_named():
    with pytest.raises(ConfigError, match="--point is 'size=3'; expected AXIS=VALUE"):
        scaling.main(["--point", "size=3"])
