"""The JEPA head: the reference's numbers with its options, and what the repaired one may see and lose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.models.jepa_head import (
    JepaHead,
    jepa_terms,
    masked_distance,
    normalize,
    pooled_penalty,
    spread_means,
    spread_penalty,
    watch,
)
from polarjax.ops.spread import PENALTIES
from polarjax.ops.target_network import ema
from tests.models.jitted import apply
from tests.models.reference_jepa import REFERENCE, reference_params

SIZES = ((9, 9), (5, 5), (3, 3))
BATCH, DEPTH, WIDTH, ACTION = 2, 6, 8, 3


def channels_last(precision, arrays, name):
    return [jnp.moveaxis(precision.array(arrays[f"{name}{level}"]), 1, -1) for level in range(3)]


def test_loss_codes_and_gradients_equal_the_reference(golden, precision):
    arrays = golden("polar/polar_jepa")
    head = JepaHead(3, width=8, **REFERENCE)
    params, target = (
        reference_params(arrays, "p.", name, 3, precision.dtype) for name in ("proj_s", "proj_t")
    )
    contexts, targets = (channels_last(precision, arrays, name) for name in ("ctx", "tgt"))
    masks = [jnp.asarray(arrays[f"mask{level}"])[None] for level in range(3)]

    @jax.jit
    def loss(params, target, contexts, targets):
        terms = jepa_terms(head, params, target, [contexts], targets, masks, [None])
        return terms.loss, terms

    (value, terms), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(
        params, target, contexts, targets
    )
    precision.assert_value(value, arrays[f"loss{precision.suffix}"])
    for level in range(3):
        found = {"zc": normalize(terms.codes[level]), "zt": terms.targets[level]}
        for name, code in found.items():
            expected = arrays[f"{name}{level}{precision.suffix}"]
            precision.assert_value(jnp.moveaxis(code, -1, 1), expected, f"{name}{level}")
        wanted = arrays[f"dctx{level}{precision.suffix}"]
        precision.assert_gradient(jnp.moveaxis(gradients[2][level], -1, 1), wanted, f"dctx{level}")
    grads = {
        name.removesuffix(precision.suffix): value
        for name, value in arrays.items()
        if name.endswith(precision.suffix)
    }
    expected = reference_params(grads, "grad.", "proj_s", 3, precision.dtype)
    jax.tree.map(precision.assert_gradient, gradients[0], expected)
    for nothing in (gradients[1], gradients[3]):
        jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), nothing)


def test_the_moved_target_equals_the_reference(golden, precision):
    arrays = golden("polar/polar_jepa")
    target, online = (
        {k[9:]: precision.array(v) for k, v in arrays.items() if k.startswith(f"p.{name}.")}
        for name in ("proj_t", "proj_s")
    )
    moved = ema(target, online, float(arrays["tau"]))
    assert len(moved) == 12
    for name, value in moved.items():
        precision.assert_value(value, arrays[f"after_ema.proj_t.{name}{precision.suffix}"], name)


def maps(seed=0):
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=(BATCH, *size, DEPTH)), jnp.float32) for size in SIZES]


def half(batch=BATCH):
    random = np.random.default_rng(7)
    return [jnp.asarray(random.permuted(np.arange(h * w) % 2 == 0).reshape(1, h, w)) for h, w in SIZES]


def make(**options):
    """Returns a head and parameters that are not 0 anywhere."""
    head = JepaHead(3, width=WIDTH, **options)
    shapes = jax.eval_shape(head.init, jax.random.key(0), maps(), half(), jnp.ones((BATCH, ACTION)))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), x.dtype), shapes["params"])
    return head, params


def predictions(head, params, context, action=None, which=0):
    action = jnp.ones((BATCH, ACTION)) if action is None else action
    return apply(head, {"params": params}, context, half(), action, then=(which,))[1]


def test_the_parameters_are_those_of_the_levels():
    head, params = make(deltas=(3, 5))
    assert set(params) == {"masked_token"} | {
        f"{kind}_{i}" for kind in ("projector", "predictor") for i in range(3)
    }
    assert params["masked_token"].shape == (3, WIDTH)
    assert params["projector_0"]["hidden"]["kernel"].shape == (DEPTH, WIDTH)
    shapes = jax.tree.map(jnp.shape, params["predictor_2"])
    dense = {"kernel": (WIDTH, WIDTH), "bias": (WIDTH,)}
    assert shapes == {
        "kernel": (3, 3, WIDTH, WIDTH),
        "bias": (WIDTH,),
        "deltas": (2, WIDTH),
        "action": {"kernel": (ACTION, WIDTH)},
        "out": dense,
    }


def test_predictions_do_not_see_what_is_masked():
    head, params = make()
    hidden = [jnp.where(mask[..., None], 9.0, x) for mask, x in zip(half(), maps(), strict=True)]
    pairs = zip(predictions(head, params, maps()), predictions(head, params, hidden), strict=True)
    for before, after in pairs:
        np.testing.assert_array_equal(before, after)
    seen = [jnp.where(mask[..., None], x, 9.0) for mask, x in zip(half(), maps(), strict=True)]
    assert np.abs(predictions(head, params, maps())[0] - predictions(head, params, seen)[0]).max() > 0.1


def test_the_head_of_the_reference_sees_what_it_is_to_predict():
    head, params = make(**REFERENCE)
    hidden = [jnp.where(mask[..., None], 9.0, x) for mask, x in zip(half(), maps(), strict=True)]
    assert np.abs(predictions(head, params, maps())[0] - predictions(head, params, hidden)[0]).max() > 0.1


def test_a_prediction_looks_at_its_neighbours_alone():
    head, params = make()
    row, column = np.argwhere(~np.asarray(half()[0][0, 2:-2, 2:-2]))[0] + 2
    changed = maps()
    changed[0] = changed[0].at[:, row, column].add(5.0)
    moved = (
        np.abs(predictions(head, params, maps())[0] - predictions(head, params, changed)[0]).max((0, 3))
        > 1e-6
    )
    near = np.zeros((9, 9), bool)
    near[row - 1 : row + 2, column - 1 : column + 2] = True
    np.testing.assert_array_equal(moved, near)


def test_predictions_have_unit_length_and_follow_the_action_and_the_delta():
    head, params = make(deltas=(2, 5))
    first = predictions(head, params, maps())
    for prediction in first:
        np.testing.assert_allclose(jnp.linalg.norm(prediction, axis=-1), 1, rtol=1e-5)
    for other in (
        predictions(head, params, maps(), action=-jnp.ones((BATCH, ACTION))),
        predictions(head, params, maps(), which=1),
    ):
        assert np.abs(first[0] - other[0]).max() > 1e-2


def terms_of(head, params, target_params=None, **options):
    contexts = [maps(seed) for seed in range(len(head.deltas))]
    actions = [jnp.full((BATCH, ACTION), float(i)) for i in range(len(head.deltas))]
    return jepa_terms(head, params, target_params, contexts, maps(9), half(), actions, **options)


def test_the_loss_of_several_deltas_is_their_mean_written_out_in_numpy():
    head, params = make(deltas=(2, 5))
    terms, expected = terms_of(head, params), np.zeros((2, 3))
    targets = [np.asarray(x) for x in head.apply({"params": params}, maps(9), method="project")]
    for which in range(2):
        action = jnp.full((BATCH, ACTION), float(which))
        made = predictions(head, params, maps(which), action, which)
        for level, (prediction, target, mask) in enumerate(zip(made, targets, half(), strict=True)):
            cosine = (np.asarray(prediction) * target).sum(-1) / np.linalg.norm(target, axis=-1)
            expected[which, level] = 1 - cosine[:, np.asarray(mask[0])].mean()
    np.testing.assert_allclose(terms.by_level, expected.mean(0), rtol=1e-5)
    np.testing.assert_allclose(terms.loss, expected.mean(), rtol=1e-5)
    assert 0 <= terms.loss <= 2


def test_the_gradient_reaches_the_target_only_where_it_is_asked_to():
    head, params = make()
    _, target = make(deltas=(1,))
    target = jax.tree.map(lambda x: x + 0.1, target)
    slope = {
        detached: jax.jit(jax.grad(lambda t, d=detached: terms_of(head, params, t, detached=d).loss))(target)
        for detached in (True, False)
    }
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope[True]))
    assert np.any(slope[False]["projector_0"]["hidden"]["kernel"])


def test_every_parameter_has_a_gradient():
    head, params = make(deltas=(2, 5))
    gradients = jax.jit(jax.grad(lambda p: terms_of(head, p).loss))(params)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_maps_of_zeros_give_finite_gradients():
    head = JepaHead(3, width=WIDTH)
    blank = [jnp.zeros_like(x) for x in maps()]
    params = head.init(jax.random.key(0), blank, half())["params"]

    def loss(params, context):
        return jepa_terms(head, params, None, [context], blank, half(), [None], detached=False).loss

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, blank)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_equal_predictions_have_no_distance_and_opposite_ones_two():
    code = normalize(maps()[0])
    np.testing.assert_allclose(masked_distance(code, code, half()[0]), 0, atol=1e-6)
    np.testing.assert_allclose(masked_distance(code, -code, half()[0]), 2, rtol=1e-6)


def test_contexts_that_do_not_fit_the_deltas_are_named():
    head, params = make(deltas=(2, 5))
    with pytest.raises(ConfigError, match=r"2 deltas \(2, 5\), but got 1 contexts and 1 actions"):
        jepa_terms(head, params, None, [maps()], maps(), half(), [None])


@pytest.mark.parametrize("name", ["coding_rate", "variance_covariance", "sliced_gaussian"])
def test_a_penalty_is_the_mean_over_levels_and_larger_for_collapsed_codes(name):
    key = jax.random.key(0)
    spread = spread_penalty(name, maps(), key)
    assert spread < spread_penalty(name, [jnp.zeros_like(x) for x in maps()], key)
    levels = [spread_penalty(name, [x], k) for x, k in zip(maps(), jax.random.split(key, 3), strict=True)]
    if name != "sliced_gaussian":
        np.testing.assert_allclose(spread, np.mean(levels), rtol=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_parts_of_a_batch_have_the_penalty_of_all_of_it_and_their_gradients_add_up_to_its_own(name):
    codes, key = maps(), jax.random.key(0)
    parts = [[x[:1] for x in codes], [x[1:] for x in codes]]
    means = [spread_means(name, part, key) for part in parts]
    whole = jax.tree.map(lambda *leaves: sum(leaves) / 2, *means)
    values, gradients = [], []
    penalty = jax.jit(jax.value_and_grad(lambda part: pooled_penalty(name, part, key, whole, 2)))
    for part in parts:
        of_part = penalty(part)
        values.append(of_part[0])
        gradients.append(of_part[1])
    expected, slopes = jax.jit(jax.value_and_grad(lambda codes: spread_penalty(name, codes, key)))(codes)
    np.testing.assert_allclose(values, [expected] * 2, rtol=2e-5)
    for level, slope in enumerate(slopes):
        found = np.concatenate([gradient[level] for gradient in gradients]) / 2
        np.testing.assert_allclose(found, slope, rtol=1e-3, atol=2e-5 * np.abs(slope).max())


def test_an_unknown_penalty_is_named():
    with pytest.raises(ConfigError, match="'coding_rat'; did you mean 'coding_rate'"):
        spread_penalty("coding_rat", maps(), jax.random.key(0))


def test_codes_are_watched_at_every_level():
    found = watch("jepa_code", maps())
    assert set(found) == {
        f"jepa_code/{name}_{level}"
        for name in ("deviation", "cosine", "rank", "coding_rate", "rate")
        for level in range(3)
    }
    assert found["jepa_code/deviation_0"] > 0.9
