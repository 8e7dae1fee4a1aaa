import json

from benchmarks import data
from tests.benchmarks.test_step import TOY


def test_both_storages_train_in_turn_and_what_streaming_costs_is_written(tmp_path, capsys):
    data.main([*TOY, "--steps", "2", "--rounds", "2", "--json", str(tmp_path / "data.json")])
    resident, streamed = json.loads((tmp_path / "data.json").read_text())
    assert (resident["storage"], streamed["storage"]) == ("resident", "streamed")
    assert resident["cost_percent"] == 0
    assert streamed["request_mb"] > 10 * resident["request_mb"]
    for row in (resident, streamed):
        assert row["step_ms"] > 0 and row["reads_per_s"] > 0 and 0 <= row["waiting_percent"] <= 100
    assert capsys.readouterr().out.split()[:3] == ["storage", "step_ms", "cost_percent"]
