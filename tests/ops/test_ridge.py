"""Ridge regression in its dual form, the scale of features, and what a prediction explains."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from polarjax.ops.ridge import Scale, explained_variance, ridge

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 7), (12, 30)])
def test_the_weights_are_those_of_the_primal_form_and_of_scikit_learn(shape):
    x, y = GENERATOR.normal(size=shape), GENERATOR.normal(size=(shape[0], 2))
    penalties = (1e-3, 0.2)
    found = ridge(x, y, penalties)
    assert found.shape == (2, shape[1], 2)
    for penalty, weights in zip(penalties, found, strict=True):
        alpha = penalty * x.size
        primal = np.linalg.solve(x.T @ x + alpha * np.eye(shape[1]), x.T @ y)
        np.testing.assert_allclose(weights, primal, rtol=1e-8, atol=1e-10)
        theirs = Ridge(alpha=alpha, fit_intercept=False).fit(x, y).coef_.T
        np.testing.assert_allclose(weights, theirs, rtol=1e-8, atol=1e-10)


def test_features_have_mean_0_and_deviation_1_and_constant_ones_stay_small():
    features = GENERATOR.normal(3.0, 5.0, (200, 3)).astype(np.float32)
    features[:, 2] = 7.0
    features[0, 2] += 1e-4
    scaled = Scale.of(features).apply(features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, rtol=1e-6)
    assert np.abs(scaled[:, 2]).max() < 0.1
    assert np.isfinite(Scale.of(np.ones((5, 2))).apply(np.ones((5, 2)))).all()


def test_explained_variance_is_1_if_exact_0_for_the_fitted_mean_and_below_0_if_worse():
    y, mean = GENERATOR.normal(1.0, 2.0, (50, 2)), np.asarray([1.0, 1.0])
    assert explained_variance(y, y, mean) == 1
    assert explained_variance(y, np.tile(mean, (50, 1)), mean) == 0
    assert explained_variance(y, y + 10, mean) < -1
    assert math.isnan(explained_variance(np.ones((4, 1)), np.ones((4, 1)), np.ones(1)))
