"""Filters and places in parameter trees of several models."""

import numpy as np

from polarjax.reports.parameters import find_filters, find_places


def test_dense_filters_are_found_at_any_depth():
    even, odd = np.ones((3, 3, 1, 4)), np.zeros((3, 3, 1, 4))
    params = {"core": {"filters": {"even": {"kernel": even}, "odd": {"kernel": odd}}}}
    found = find_filters(params)
    np.testing.assert_array_equal(found[0], even)
    np.testing.assert_array_equal(found[1], odd)


def test_a_separable_bank_is_multiplied_out():
    generator = np.random.default_rng(0)
    bank = {
        name: {
            "spatial": {"kernel": generator.normal(size=(3, 3, 1, 2))},
            "mixing": {"kernel": generator.normal(size=(2, 5)), "bias": np.zeros(5)},
        }
        for name in ("even", "odd")
    }
    even, _ = find_filters({"filters": bank})
    assert even.shape == (3, 3, 2, 5)
    spatial, mixing = bank["even"]["spatial"]["kernel"], bank["even"]["mixing"]["kernel"]
    np.testing.assert_allclose(even[1, 2, 1, 3], spatial[1, 2, 0, 1] * mixing[1, 3])


def test_places_are_in_degrees():
    readout = {
        "mean": np.ones((2, 3, 2)),
        "log_width": np.log(np.full((2, 3, 2), 0.5)),
        "angle": np.zeros((2, 3)),
    }
    places = find_places({"readout": readout})
    np.testing.assert_allclose(places.width, 0.5)


def test_a_model_without_filters_or_with_a_readout_for_each_level_has_none():
    assert find_filters({"readout": {"kernel": np.ones(3)}}) is None
    readout = {
        "mean": np.ones((2, 3, 4, 2)),
        "log_width": np.ones((2, 3, 4, 2)),
        "correlation": np.ones((2, 3, 4)),
    }
    assert find_places({"readout": readout}) is None
