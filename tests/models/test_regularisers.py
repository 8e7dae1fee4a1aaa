"""Penalties on readouts against loops, and their gradients where weights are exactly 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models import regularisers
from polarjax.models.linear_nonlinear import LinearNonlinear


def params_of(module, variables):
    kernel = variables["params"]["readout"]["kernel"]
    return kernel, {"readout": {"kernel": kernel}}


def test_penalties_are_their_sums_over_units_levels_and_summaries(make_model):
    module, variables = make_model(n_units=(3, 2), surround=2.0)
    kernel, params = params_of(module, variables)
    absolute, groups = 0.0, 0.0
    for session, count in enumerate(module.n_units):
        for unit in np.asarray(kernel[session, :count], np.float64):
            absolute += np.abs(unit).sum()
            for level in unit:
                for first in range(0, level.size, module.n_pairs):
                    group = level[first : first + module.n_pairs]
                    groups += np.sqrt(module.n_pairs) * np.sqrt((group**2).sum())
    assert kernel.shape[-1] == 2 * len(module.summaries) * module.n_pairs
    terms = regularisers.regularise(module, params, regularisers.FEATURE_TERMS)
    np.testing.assert_allclose(terms["feature_l1"], absolute, rtol=1e-5)
    np.testing.assert_allclose(terms["feature_group_lasso"], groups, rtol=1e-5)


@pytest.mark.parametrize("name", regularisers.FEATURE_TERMS)
def test_gradients_are_finite_at_zero_and_none_for_units_that_pad(make_model, name):
    module, variables = make_model(n_units=(3, 2))
    kernel, _ = params_of(module, variables)
    kernel = kernel.at[0, 0].set(0.0)

    def penalty(kernel):
        return regularisers.regularise(module, {"readout": {"kernel": kernel}}, (name,))[name]

    gradient = jax.grad(penalty)(kernel)
    np.testing.assert_array_equal(gradient[0, 0], 0)
    np.testing.assert_array_equal(gradient[1, 2], 0)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient[0, 1:]) > 0).all()


def test_the_gradient_of_a_group_has_the_length_of_the_root_of_its_size():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 8)), jnp.float32)
    gradient = jax.grad(regularisers.feature_group_lasso)(kernel, 4)
    lengths = np.linalg.norm(np.asarray(gradient).reshape(-1, 4), axis=1)
    np.testing.assert_allclose(lengths, 2.0, rtol=1e-5)


def test_a_model_without_weighed_features_has_no_penalty_on_them():
    module = LinearNonlinear(n_units=(2,), frame_shape=(9, 6, 1))
    regularisers.check_terms(module, ("poisson",))
    with pytest.raises(
        ConfigError, match=r"weights\.feature_l1 is not 0, but LinearNonlinear has no readout"
    ):
        regularisers.check_terms(module, ("poisson", "feature_l1"))
