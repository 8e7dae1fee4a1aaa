import os
import random
import sys

import pytest

from benchmarks import soak
from polarjax.core import ConfigError
from tests.engine.runs import run

LOGGED = {"train.save_every": 1, "train.log_every": 1}
TOY = """
import os, sys
os.environ["XLA_FLAGS"] = {FLAGS!r}
from polarjax.engine import loop
from tests.engine import toy
loop.train(toy.make_config(**{LOGGED!r}), toy.make_system(), toy.make_data(), sys.argv[1])
"""


def test_a_run_that_is_killed_twice_ends_with_the_bits_and_the_log_of_one_that_was_not(tmp_path, monkeypatch):
    # the flags of the run that nothing kills, which is in this process: the last bits may depend on them
    source = TOY.format(FLAGS=os.environ["XLA_FLAGS"], LOGGED=LOGGED)
    monkeypatch.setattr(soak, "_command", lambda workdir, steps: [sys.executable, "-c", source, str(workdir)])
    run(tmp_path / "whole", **LOGGED)
    report = soak.kill_runs(tmp_path / "whole", 12, 10.0, 2, random.Random(1))
    assert report["kills"] == 2 and report["runs that ended and were compared"] >= 1
    assert {name: count for name, count in report.items() if name.startswith("wrong: ") and count} == {}


def test_no_damage_of_a_checkpoint_is_silent(tmp_path):
    run(tmp_path / "whole")
    report = soak.damage(tmp_path / "whole", 30, random.Random(0))
    assert report["detected, the step before restored"] + report["harmless, every value verified"] == 30
    assert report["detected, the step before restored"] >= 4
    assert {name: count for name, count in report.items() if name.startswith("wrong: ") and count} == {}


@pytest.mark.parametrize("kind", soak.KINDS)
def test_every_kind_of_damage_changes_the_file(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(1, 201)))
    soak.spoil(path, kind, random.Random(0))
    assert not path.exists() or path.read_bytes() != bytes(range(1, 201))


def test_a_count_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="--kills is 'many'; expected a whole number"):
        soak.main(["--kills", "many"])
