import json

from polarjax.engine import history


def test_curves_keep_the_last_value_of_a_step_and_pass_over_half_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "train/loss": 3.0},
        {"step": 2, "train/loss": 2.0, "note": "x"},
        {"step": 1, "train/loss": 1.0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "tra')
    assert history.read_curves(path) == {"train/loss": [(1, 1.0), (2, 2.0)]}
    assert history.read_curves(tmp_path / "absent") == {}
