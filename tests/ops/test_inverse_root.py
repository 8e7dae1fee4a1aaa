"""1/sqrt(x): its precision, its slope, and that its bits do not know where in an array a number stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import inverse_root as module
from polarjax.ops.inverse_root import inverse_root, root

ULP = 2.0**-23


def numbers():
    """All mantissas come twice, as an even and as an odd power of two, and large and small numbers once."""
    mantissas = np.linspace(1, 4, 100_001)
    return np.concatenate([mantissas, 10 ** np.random.default_rng(0).uniform(-37, 37, 20_000)]).astype(
        np.float32
    )


def test_the_inverse_root_is_that_of_float64_to_the_last_place_and_so_is_the_root():
    x = numbers()
    exact = 1 / np.sqrt(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(inverse_root)(x), exact, rtol=ULP)
    np.testing.assert_allclose(jax.jit(root)(x), 1 / exact, rtol=1.5 * ULP)


def test_the_slopes_are_those_of_the_formulas():
    x = numbers()[:2000]
    exact = x.astype(np.float64)
    of_inverse, of_root = (
        jax.jit(jax.grad(lambda x, function=function: function(x).sum()))(x)
        for function in (inverse_root, root)
    )
    np.testing.assert_allclose(of_inverse, -0.5 * exact**-1.5, rtol=4 * ULP)
    np.testing.assert_allclose(of_root, 0.5 * exact**-0.5, rtol=4 * ULP)


def test_a_number_has_the_same_bits_wherever_it_stands():
    """As a run compiles: vectors for most of a loop, and single numbers for what is left.

    With AVX-512 one of eleven of these has other bits where XLA's own root is taken.
    """
    x = numbers()[-1333:]
    compiled = {
        size: jax.jit(inverse_root)
        .lower(jax.ShapeDtypeStruct((size,), x.dtype))
        .compile({"xla_backend_optimization_level": 3})
        for size in (1, 7, 1333)
    }
    whole = np.asarray(compiled[1333](x))
    for size in (1, 7):
        parts = [compiled[size](x[at : at + size]) for at in range(0, len(x) - size, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole[: size * len(parts)])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_does_not_become_a_number(bad):
    assert not np.isfinite(inverse_root(jnp.float32(bad)))


def test_accelerators_and_float64_have_their_own(monkeypatch):
    x = numbers()[:1000]
    ours = jax.jit(inverse_root)(x)
    monkeypatch.setattr(module, "prefers_arithmetic", lambda: False)
    theirs = jax.jit(lambda x: inverse_root(x))(x)
    np.testing.assert_allclose(ours, theirs, rtol=2 * ULP)
    with jax.enable_x64(True):
        double = jnp.asarray(x, jnp.float64)
        np.testing.assert_allclose(inverse_root(double), 1 / np.sqrt(x.astype(np.float64)), rtol=1e-15)
