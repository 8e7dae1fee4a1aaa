"""The benchmark on images and counts: folds that do not leak, and a ridge that finds what there is."""

import json

import numpy as np
import pytest

from benchmarks import macaque, macaque_choice
from benchmarks.macaque_choice import Setting
from polarjax.data.image_counts import MISSING
from polarjax.engine import config

MOVIES, IMAGES, SIDE = 3, 24, 24
TWO = (Setting(0.2, None, 1.0), Setting(0.1, 2.0, 3.0))


@pytest.fixture
def archive(tmp_path):
    random = np.random.default_rng(0)
    contrast = random.uniform(5, 60, IMAGES)
    phase = random.uniform(0, 2 * np.pi, IMAGES)
    grating = np.cos(2 * np.pi * 0.25 * np.arange(SIDE) + phase[:, None]) * contrast[:, None]
    images = (127 + np.broadcast_to(grating[:, None], (IMAGES, SIDE, SIDE))).round().astype(np.uint8)
    counts = random.poisson(contrast[:, None, None] / 5, (IMAGES, 4, 2)).astype(np.uint8)
    counts[::5, -1] = MISSING
    movie = np.repeat(np.arange(MOVIES, dtype=np.uint8), IMAGES // MOVIES)
    file = tmp_path / "gratings.npz"
    np.savez(file, images=images, movie=movie, recordings=np.array(["gratings"]), counts_gratings=counts)
    return file


def test_every_image_is_predicted_by_a_model_that_did_not_see_its_movie(
    archive, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(macaque, "SETTINGS", TWO)
    file = tmp_path / "numbers.json"
    macaque.main(
        [
            *("--file", str(archive), "--recording", "gratings", "--workdir", str(tmp_path / "runs")),
            *("--json", str(file), f"--config.data.virtual.cache={tmp_path / 'cache'}"),
            *(
                "--config.data.batch_size=8",
                "--config.model.kwargs.n_levels=1",
                "--config.model.kwargs.n_pairs=2",
            ),
            *("--config.train.num_steps=30", "--config.train.save_every=30"),
        ]
    )
    numbers = json.loads(file.read_text())
    assert (numbers["units"], numbers["images"]) == (2, IMAGES)
    assert numbers["ridge"] > 0.7
    assert np.isfinite(numbers["polar_v1"])
    for left_out in range(MOVIES):
        (session,) = (tmp_path / "runs" / f"sessions-{left_out}").iterdir()
        assert numbers[f"movie_{left_out}"].startswith("initial_width 0.")
        assert f"test movies [{left_out}]" in (session / "session.json").read_text()
    assert "ridge_within_movies" in capsys.readouterr().out


def test_a_movie_has_no_say_in_which_setting_predicts_it(archive):
    small = {"model.kwargs.n_levels": "1", "model.kwargs.n_pairs": "2", "train.num_steps": "30"}
    settings = config.load(str(macaque.CONFIG), small)
    with np.load(archive) as content:
        images, movie, counts = content["images"], content["movie"].astype(int), content["counts_gratings"]
    scores = macaque_choice.score(settings, images, counts, movie, TWO)
    assert scores.shape == (2, MOVIES)
    changed = counts.copy()
    changed[movie == 1] = changed[movie == 1][::-1]
    again = macaque_choice.score(settings, images, changed, movie, TWO)
    np.testing.assert_array_equal(scores[:, 1], again[:, 1])
    assert np.all(scores[:, [0, 2]] != again[:, [0, 2]])
    best = macaque_choice.choose(settings, images, counts, movie, TWO)
    assert best == {m: TWO[k] for m, k in enumerate(scores.argmax(0))}


def test_a_missing_flag_is_named(archive):
    with pytest.raises(macaque.ConfigError, match="--recording is missing: name of the recording"):
        macaque.main(["--file", str(archive)])
