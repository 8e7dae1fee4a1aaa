"""Numbers that tell collapse: the recorded ones, and what collapsed and spread codes score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import collapse

CASES = ("gauss", "lowrank", "collapsed", "relu")
RANK = "rankme_stable_pretraining(uncentered,+1e-5)"


@pytest.mark.parametrize("case", CASES)
def test_rank_and_cosine_equal_the_reference(golden, precision, case):
    arrays = golden("seqjepa/diagnostics")
    z = precision.array(arrays[f"{case}.Z"])
    precision.assert_value(collapse.mean_cosine(z), arrays[f"{case}.mean_cosine_offdiag"])
    precision.assert_value(collapse.rank_me(z), arrays[f"{case}.{RANK}"])


@pytest.mark.parametrize("case", CASES)
def test_the_deviation_equals_numpy(golden, precision, case):
    z = golden("seqjepa/diagnostics")[f"{case}.Z"].astype(np.float64)
    unit = z / np.sqrt((z**2).sum(1, keepdims=True))
    expected = np.sqrt(z.shape[1] * ((unit - unit.mean(0)) ** 2).mean(0)).mean()
    precision.assert_value(collapse.normalized_deviation(precision.array(z)), expected)


def test_the_recorded_collapse_is_told_though_its_centred_rank_is_full(golden):
    arrays = golden("seqjepa/diagnostics")
    found = collapse.diagnose(jnp.asarray(arrays["collapsed.Z"]))
    assert arrays["collapsed.effrank_entropy_singular_centered(RoyVetterli/RankMe)"] > 11
    assert found["deviation"] < 1e-5
    assert found["cosine"] > 1 - 1e-5
    assert found["rank"] < 1.01
    assert found["rate"] < 1e-5


def test_axes_and_their_opposites_are_spread():
    found = collapse.diagnose(jnp.concatenate([jnp.eye(8), -jnp.eye(8)]))
    np.testing.assert_allclose(found["deviation"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["cosine"], -1 / 15, rtol=1e-5)
    np.testing.assert_allclose(found["rank"], 8, rtol=1e-3)
    np.testing.assert_allclose(found["rate"], 1, rtol=1e-5)
    np.testing.assert_allclose(found["coding_rate"], 8 * np.log(2), rtol=1e-5)


def test_codes_that_are_all_zero_have_finite_numbers():
    assert all(np.isfinite(value) for value in collapse.diagnose(jnp.zeros((10, 4))).values())


def test_watching_gives_no_gradient():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(12, 4)), jnp.float32)
    gradient = jax.grad(lambda z: sum(collapse.diagnose(z).values()))(z)
    np.testing.assert_array_equal(gradient, 0)


def test_rows_are_thinned_from_all_columns_of_maps_always_alike():
    rows = jnp.tile(jnp.arange(64.0), 64)[:, None]
    columns = collapse.thin_rows(rows, 512)[:, 0]
    assert len(columns) == 512 and len(np.unique(columns)) == 64
    np.testing.assert_array_equal(columns, collapse.thin_rows(rows, 512)[:, 0])
    rows = jnp.arange(10.0)[:, None]
    assert len(np.unique(collapse.thin_rows(rows, 5))) == 5
    np.testing.assert_array_equal(collapse.thin_rows(rows, 10), rows)
