"""A work directory of a tiny system on a tiny virtual V1, without training."""

import shutil
import types

import ml_collections
import numpy as np
import pytest

from polarjax import data as data_module
from polarjax import systems
from polarjax.reports import study
from tests.data.conftest import data_section

from .fabricated import save_checkpoint, tiny_params, tiny_system
from .fabricated_study import make_question, make_results

SECTIONS = ("model", "loss", "optim")


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """Two virtual sessions of 12 s, segments of 8 + 24 frames; model, loss and optim are not read."""
    config = ml_collections.ConfigDict({"system": "tiny", "seed": 0, **{name: {} for name in SECTIONS}})
    virtual = {"seed": 3, "minutes": 0.4}
    sizes = {"burn_in": 8, "predicted": 24, "seed": 0}
    config.data = data_section("", tmp_path_factory.mktemp("cache"), virtual=virtual, **sizes)
    config.train = {"num_steps": 30, "best_metric": "eval/bits_per_spike"}
    return config


@pytest.fixture(scope="session")
def tiny_data(tiny_config):
    data = data_module.build(tiny_config.data)
    yield data
    data.close()


@pytest.fixture
def use_tiny_system(monkeypatch):
    monkeypatch.setattr(systems, "build", tiny_system)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_config, tiny_data):
    """A run with a linear-nonlinear run inside, both of the tiny system, to be read."""
    folder = tmp_path_factory.mktemp("runs") / "tiny-run"
    params = tiny_params(tiny_data.info)
    save_checkpoint(folder, tiny_config, tiny_data.info, params)
    flat = params | {"gain": np.zeros((), np.float32)}
    save_checkpoint(folder / "linear_nonlinear", tiny_config, tiny_data.info, flat, steps=(20,))
    return types.SimpleNamespace(path=folder, params=params, config=tiny_config, data=tiny_data)


@pytest.fixture
def tiny_workdir(tmp_path, tiny_run, use_tiny_system):
    """A copy of the run, to be changed."""
    folder = tmp_path / "tiny-run"
    shutil.copytree(tiny_run.path, folder, ignore=shutil.ignore_patterns("eval"))
    return types.SimpleNamespace(**vars(tiny_run) | {"path": folder})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study whose pages and tables were written, and its summary."""
    folder = tmp_path_factory.mktemp("study")
    failures = [{"entry": "minimal", "seed": 7, "error": "exit code 3: no sessions"}]
    return folder, study.write_study(make_question(), make_results(), failures, folder)
