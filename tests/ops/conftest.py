"""The two precisions in which every formula is held to the reference, and how close it must come."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@dataclasses.dataclass(frozen=True)
class Precision:
    """A dtype, the suffix of its reference arrays, and its tolerances."""

    dtype: type
    suffix: str
    value: float
    gradient: float
    gradient_floor: float

    def array(self, x):
        return jnp.asarray(x, self.dtype)

    def assert_value(self, actual, expected, name=""):
        assert actual.dtype == self.dtype, name
        np.testing.assert_allclose(actual, expected, rtol=self.value, atol=self.value, err_msg=name)

    def assert_gradient(self, actual, expected, name=""):
        assert actual.dtype == self.dtype, name
        floor = self.gradient_floor * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=self.gradient, atol=floor, err_msg=name)


# The reference took its float64 gradients with float64 weights and stored these weights rounded to float32, relative
# error 2^-24 = 6e-8 (tests/ops/test_dynamics.py shows it by recovering them). A gradient is linear in the weights, so
# stored weights cannot reproduce it better than that; sums over many pixels cancel to some 1e-7 of the largest entry.
# Where the weights can be recovered, and in the second formulas, float64 gradients are held to 1e-9 and below.
PRECISIONS = (
    Precision(np.float32, "", 2e-5, 1e-3, 1e-5),
    Precision(np.float64, ".f64", 1e-9, 1e-9, 1e-6),
)


@pytest.fixture(params=PRECISIONS, ids=lambda precision: precision.dtype.__name__)
def precision(request):
    """Runs the test in float32, then in float64."""
    double = request.param.dtype is np.float64
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        yield request.param
