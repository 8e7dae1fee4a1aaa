"""Images and counts -> sessions -> configs/macaque_v1.py -> a report with the correlation with the trial mean."""

import pathlib

import numpy as np
import pytest

from polarjax import data, systems
from polarjax.data import convert
from polarjax.engine import config, loop
from polarjax.reports import evaluate

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES, REPEATS, UNITS, SIDE = 48, 6, 3, 24


@pytest.fixture
def recording(tmp_path):
    """Six movies of eight gratings, whose contrast under the centre three units count."""
    random = np.random.default_rng(0)
    column, contrast = np.arange(SIDE), random.uniform(0, 60, IMAGES)
    phase = random.uniform(0, 2 * np.pi, IMAGES)
    grating = np.cos(2 * np.pi * 0.2 * column[None] + phase[:, None]) * contrast[:, None]
    images = 127 + np.broadcast_to(grating[:, None], (IMAGES, SIDE, SIDE))
    counts = random.poisson(contrast[:, None, None] / 10, (IMAGES, REPEATS, UNITS)).astype(np.uint8)
    counts[::5, -1] = convert.MISSING
    file = tmp_path / "gratings.npz"
    np.savez(
        file,
        images=images.round().astype(np.uint8),
        movie=np.repeat(np.arange(6, dtype=np.uint8), IMAGES // 6),
        recordings=np.array(["gratings"]),
        counts_gratings=counts,
    )
    return file


def test_a_recording_of_images_is_converted_and_fitted_and_reported(recording, tmp_path):
    sessions, workdir = tmp_path / "sessions", tmp_path / "run"
    command = ["image_counts", str(recording), "--recording", "gratings", "--out", str(sessions)]
    assert convert.main(command) == 0
    overrides = {
        "data.sessions": str(sessions),
        "data.virtual.cache": str(tmp_path / "cache"),
        "data.batch_size": "16",
        "model.kwargs.n_pairs": "4",
        "train.num_steps": "60",
    }
    settings = config.load(str(ROOT / "configs" / "macaque_v1.py"), overrides)
    source = data.build(settings.data)
    loop.train(settings, systems.build(settings, source.info), source, workdir)
    source.close()
    report = evaluate.write_report(workdir)
    correlation = report["correlation"]["with_trial_mean"]
    assert (report["checkpoint_step"], report["tier"], correlation["units"]) == (60, "test", UNITS)
    assert correlation["median"] > 0.5
