"""Every study of the repository: it loads, and every value it sets is one that its config and its model have."""

import pathlib

import jax
import numpy as np
import pytest

from polarjax import systems
from polarjax.core import Batch, DataInfo, SessionInfo
from polarjax.data.virtual_units import TAU_FIX_S, TAU_SAC_S
from polarjax.engine import config
from polarjax.engine.optim import check_groups, label_parameters
from polarjax.studies import budget, study_file

from .conftest import ROOT

INFO = DataInfo(
    (SessionInfo("one", "a", ("x", "y"), (0.1,) * 2, ((0.1, 0.0),) * 2, "", ""),), 120.0, 37.0, (51, 51, 1)
)
STUDIES = sorted((ROOT / "studies").glob("*.py"))


def read(path):
    return study_file.read_study(path)


@pytest.fixture(scope="module")
def known():
    """The parameters of each form of model, which has to be traced only once."""
    return {}


def form_of(value):
    """Returns a part of a config without its real numbers, on which no shape of a parameter depends."""
    if isinstance(value, dict):
        return {key: form_of(part) for key, part in value.items()}
    return "a number" if isinstance(value, float) else value


def check_model(settings, known):
    """Builds the model of a config for one session, without computing anything."""
    frames, bins = settings.data.burn_in + settings.data.predicted, settings.data.predicted
    shapes = ((4, frames, *INFO.frame_shape), (4, frames, 2), (4, bins, 2), (4, bins, 2))
    batch = Batch(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes))
    system = systems.build(settings, INFO)
    form = str((form_of(settings.model.to_dict()), shapes))
    if form not in known:
        known[form] = jax.eval_shape(system.init, jax.random.key(0), batch)["params"]
    check_groups(config.validate(settings)[1].groups, label_parameters(system.param_group, known[form]))


def test_there_are_the_documented_studies():
    documented = {
        "v1_models",
        "temporal_constants",
        "recipe",
        "macaque_constants",
        "macaque_v1",
        "jepa_choices",
        "jepa_collapse",
        "label_efficiency",
    }
    assert {path.stem for path in STUDIES} == documented


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_entry_fits_its_config_its_model_and_its_optimizer(path, known, monkeypatch):
    monkeypatch.chdir(ROOT)
    checked = 0
    for entry in read(path).entries:
        if pathlib.Path(entry.config.partition(":")[0]).is_file():
            settings = budget.settings_of(entry, budget.overrides_of(entry, 2))
            assert (settings.seed, settings.data.seed) == (2, 2)
            check_model(settings, known)
            checked += 1
    assert checked


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_truth_is_that_of_the_virtual_v1(path):
    known = {"tau_fix_ms": TAU_FIX_S * 1e3, "tau_sac_ms": TAU_SAC_S * 1e3}
    truth = read(path).truth
    assert truth == pytest.approx({name: known[name] for name in truth})
