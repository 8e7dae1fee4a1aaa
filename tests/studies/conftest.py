"""Studies whose runs are fabricated by fake_train.py."""

import pathlib

import pytest

from polarjax.studies import conduct

FAKE = pathlib.Path(__file__).with_name("fake_train.py")
ROOT = FAKE.parents[2]
POLAR = f"{ROOT}/configs/polar.py:quick"


@pytest.fixture(autouse=True)
def the_package_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def make_study(tmp_path):
    """Writes a study file with the given runs and returns a function that conducts it."""

    def make(runs, **values):
        fields = {"QUESTION": "Which?", "SEEDS": (0, 1), "REFERENCE": "slow", "RUNS": runs, **values}
        path = tmp_path / "toys.py"
        path.write_text("\n".join(f"{name} = {value!r}" for name, value in fields.items()))

        def run(**options):
            return conduct.run_study(path, FAKE, workdir=tmp_path / "study", **options)

        return run

    return make
