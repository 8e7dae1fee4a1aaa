"""Frames, masks and actions of the JEPA head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.jepa_pairs import context_frames, interval_action, random_masks

MAPS = [jnp.zeros((3, h, w, 2)) for h, w in ((9, 9), (5, 5), (1, 1))]


@pytest.mark.parametrize(("ratio", "counts"), [(0.5, (40, 12, 1)), (0.1, (8, 2, 1)), (1.0, (81, 25, 1))])
def test_so_many_positions_of_every_example_are_masked(ratio, counts):
    masks = random_masks(jax.random.key(0), MAPS, ratio=ratio)
    for mask, x, count in zip(masks, MAPS, counts, strict=True):
        assert mask.shape == x.shape[:3]
        np.testing.assert_array_equal(mask.sum((1, 2)), count)


def test_examples_levels_and_keys_have_masks_of_their_own():
    masks = random_masks(jax.random.key(0), MAPS)
    assert np.any(masks[0][0] != masks[0][1])
    assert np.any(masks[0] != random_masks(jax.random.key(1), MAPS)[0])
    np.testing.assert_array_equal(masks[0], random_masks(jax.random.key(0), MAPS)[0])


def test_every_position_is_masked_about_as_often():
    keys = jax.random.split(jax.random.key(0), 400)
    often = jax.vmap(lambda key: random_masks(key, MAPS)[1])(keys).mean((0, 1))
    np.testing.assert_allclose(often, 12 / 25, atol=0.06)


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_a_share_outside_its_range_is_named(ratio):
    with pytest.raises(ConfigError, match=f"positions is {ratio}; it must be above 0"):
        random_masks(jax.random.key(0), MAPS, ratio=ratio)


def test_contexts_end_delta_frames_before_the_target():
    assert context_frames(9, (5,)) == (3,)
    assert context_frames(9, (1, 8)) == (7, 0)


@pytest.mark.parametrize("n_frames", [5, 2])
def test_a_segment_that_is_not_longer_than_delta_is_an_error_that_names_both(n_frames):
    with pytest.raises(
        ConfigError, match=rf"target 5 frames after .* more than 5 frames, but segments have {n_frames};"
    ):
        context_frames(n_frames, (2, 5))


@pytest.mark.parametrize("deltas", [(), (0,), (2.0,), (3, 3), (True,)])
def test_deltas_that_are_none_are_named(deltas):
    with pytest.raises(ConfigError, match="different whole numbers of frames above 0"):
        context_frames(9, deltas)


def test_the_action_is_the_mean_code_after_the_context():
    code = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 4)), jnp.float32)
    np.testing.assert_allclose(interval_action(code, 5), np.asarray(code)[:, 4:].mean(1), rtol=1e-5)


def test_an_action_has_the_same_bits_whatever_makes_the_code_beside_it():
    """A sum that XLA fuses with products adds them without rounding them first."""
    x, y = (jnp.asarray(part, jnp.float32) for part in np.random.default_rng(0).normal(size=(2, 2, 9, 32)))

    def of(make, *given):
        program = jax.jit(lambda *given: interval_action(make(*given), 5)).lower(*given)
        return program.compile({"xla_backend_optimization_level": 3})(*given)

    np.testing.assert_array_equal(of(jnp.multiply, x, y), of(lambda code: code, x * y))
