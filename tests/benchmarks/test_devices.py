import json

import numpy as np
import pytest

from benchmarks import devices
from polarjax.core import ConfigError, NumericError
from polarjax.engine import config

FLOOR = {
    "data.virtual.minutes": "0.5",
    "data.batch_size": "8",
    "data.burn_in": "4",
    "data.predicted": "4",
    "model.kwargs.n_lags": "5",
}


def end(value=1.0, time=2.0):
    return {"state/step": np.int32(2), "state/kernel": np.float32([value, 4.0]), "step_ms": np.float64(time)}


def test_ends_are_compared_bit_by_bit_and_times_are_not():
    far = np.nextafter(np.float32(1), np.float32(2))
    rows = devices.compare({(1, "deterministic"): end(), (4, "deterministic"): end(far, time=3.0)})
    assert [row["other_bits"] for row in rows] == [0, 1]
    assert rows[1]["names"] == ["state/kernel"]
    assert rows[1]["largest_difference"] == pytest.approx((far - 1) / 4)
    assert (rows[1]["arrays"], rows[1]["step_ms"]) == (2, 3.0)
    (zero,) = devices.compare({(1, "plain"): {"x": np.float32([0.0]), "step_ms": np.float64(1)}})
    assert zero["other_bits"] == 0


def both(count, deterministic):
    forms = {"deterministic": end(deterministic), "plain": end(1.0 + count / 1024)}
    return {f"{sums}/{name}": leaf for sums, form in forms.items() for name, leaf in form.items()}


def test_plain_sums_may_differ_and_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "_in_process_of_its_own", lambda count, arguments: both(count, 1.0))
    devices.main(["--devices=1,4", f"--json={tmp_path / 'devices.json'}"])
    rows = json.loads((tmp_path / "devices.json").read_text())
    assert [(row["devices"], row["sums"], row["other_bits"]) for row in rows] == [
        (1, "deterministic", 0),
        (1, "plain", 1),
        (4, "deterministic", 0),
        (4, "plain", 1),
    ]
    assert "largest_difference" in capsys.readouterr().out


def test_deterministic_sums_that_differ_are_an_error_that_names_what_differs(monkeypatch):
    monkeypatch.setattr(devices, "_in_process_of_its_own", lambda count, arguments: both(count, float(count)))
    with pytest.raises(NumericError, match="other bits on 2 devices in state/kernel"):
        devices.main(["--devices=1,2"])


@pytest.mark.parametrize("text", ["0", "1,", "two"])
def test_numbers_of_devices_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="expected whole numbers by commas"):
        devices.main([f"--devices={text}"])


def test_a_run_ends_with_its_state_and_the_sums_of_an_evaluation_for_both_sums():
    arrays = devices.end_of_run(config.load("configs/linear_nonlinear.py:quick", FLOOR), 2)
    for sums in devices.SUMS:
        assert arrays[f"{sums}/state/step"] == 2
        assert any(name.startswith(f"{sums}/evaluation/") for name in arrays)
        assert arrays[f"{sums}/step_ms"] > 0
