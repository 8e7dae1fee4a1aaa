"""Every study of the repository: it loads, and every value it sets is one of its config."""

import pathlib

import pytest

from polarjax.data.virtual_units import TAU_FIX_S, TAU_SAC_S
from polarjax.studies import budget, plan

from .conftest import ROOT

STUDIES = sorted((ROOT / "studies").glob("*.py"))


def read(path):
    return plan.read_study(path)


def test_there_are_the_documented_studies():
    assert {path.stem for path in STUDIES} >= {"v1_models", "temporal_constants", "recipe", "macaque_v1"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_entry_opens_its_config_with_its_values(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    opened = 0
    for entry in read(path).entries:
        if pathlib.Path(entry.config.partition(":")[0]).is_file():
            settings = budget.settings_of(entry, budget.overrides_of(entry, 2))
            assert (settings.seed, settings.data.seed) == (2, 2)
            opened += 1
    assert opened > 0


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_truth_is_that_of_the_virtual_v1(path):
    known = {"tau_fix_ms": TAU_FIX_S * 1e3, "tau_sac_ms": TAU_SAC_S * 1e3}
    truth = read(path).truth
    assert truth == pytest.approx({name: known[name] for name in truth})
