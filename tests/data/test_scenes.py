import socket

import numpy as np
import pytest

from polarjax.data import scenes


@pytest.fixture(scope="module")
def images():
    return scenes.load_scenes()


def test_every_photograph_loads_without_a_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("scenes must not open connections")

    monkeypatch.setattr(socket, "socket", refuse)
    for names in scenes.TIERS:
        for name in names:
            photograph = scenes.load_photograph(name)
            assert photograph.ndim == 2 and min(photograph.shape) >= 300
            assert 0 <= photograph.min() < photograph.max() < 255.001


def test_scenes_are_uint8_of_one_size_with_comparable_mean_and_contrast(images):
    assert images.luminance.dtype == np.uint8
    assert images.luminance.shape[1:] == (scenes.SCENE_SIZE, scenes.SCENE_SIZE)
    mean, contrast = images.luminance.mean((1, 2)), images.luminance.std((1, 2))
    assert np.all(np.abs(mean - 127) < 3)
    assert np.all((contrast > 30) & (contrast < 50))


def test_a_photograph_belongs_to_one_tier_and_every_tier_has_scenes(images):
    tiers = {
        name: {int(t) for n, t in zip(images.photograph, images.tier, strict=True) if n == name}
        for name in images.photograph
    }
    assert all(len(values) == 1 for values in tiers.values())
    assert {tier for values in tiers.values() for tier in values} == {0, 1, 2}
    assert len({name for name, values in tiers.items() if values == {2}}) >= 3


def test_no_two_scenes_are_equal(images):
    assert len({scene.tobytes() for scene in images.luminance}) == len(images.luminance)


def test_a_large_photograph_gives_its_four_corners_turned_and_a_small_one_is_enlarged():
    photograph = np.random.default_rng(0).uniform(0, 255, (90, 100))
    cut = scenes.cut_scenes(photograph, 60)
    assert cut.shape == (4, 60, 60)
    np.testing.assert_array_equal(cut[0], scenes.normalise_contrast(photograph[:60, :60]))
    np.testing.assert_array_equal(cut[3], scenes.normalise_contrast(np.rot90(photograph[30:, 40:], 3)))
    assert scenes.cut_scenes(photograph, 120).shape[1:] == (120, 120)


def test_a_uniform_photograph_becomes_grey_without_division_by_zero():
    assert np.all(scenes.normalise_contrast(np.full((8, 8), 30.0)) == 127)
