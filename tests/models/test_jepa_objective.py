"""Self-supervision of a model: its options, its slow copy, its gradients, what is told of its codes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import Batch, ConfigError
from polarjax.models import jepa_objective
from polarjax.models.jepa_head import masked_distance, normalize
from polarjax.models.jepa_pairs import random_masks
from polarjax.models.linear_nonlinear import LinearNonlinear
from polarjax.models.summary_maps import summary_maps
from polarjax.ops.target_network import target_decay
from tests.engine.tiny_polar import JEPA as OPTIONS

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def make_objective(make_model, make_movie):
    """make_objective(**options) -> (objective, params, model state, batch)."""

    def make(**options):
        module, variables = make_model()
        stimulus, gaze = make_movie()
        spikes = jnp.zeros((2, 1, max(module.n_units)))
        batch = Batch(stimulus, gaze, spikes, spikes)
        objective = jepa_objective.read_objective(OPTIONS | options, module, stimulus.shape[1])
        head = jax.jit(lambda: jepa_objective.init_head(objective, jax.random.key(0), variables, batch))()
        state = {name: tree for name, tree in variables.items() if name != "params"}
        return objective, {**variables["params"], "jepa": head}, state, batch

    return make


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, "config.model.jepa.widht is unknown; did you mean 'width'"),
        ({"width": 0}, "config.model.jepa.width is 0; allowed are whole numbers >= 1"),
        ({"width": True}, "config.model.jepa.width is True"),
        ({"predictor_size": 2}, "predictor_size is 2; allowed are odd numbers"),
        ({"mask_ratio": 0.0}, r"mask_ratio is 0.0; allowed are numbers in \(0, 1\]"),
        ({"target_decay": 1.5}, r"target_decay is 1.5; allowed are numbers in \(0, 1\]"),
        ({"target": "teacher"}, "target is 'teacher'; allowed are ema, none, stop_gradient"),
        ({"deltas": 5}, r"deltas is 5; expected numbers of frames, such as \(5,\)"),
        ({"sees_gaze": "False"}, "sees_gaze is 'False'; allowed are True and False"),
        ({"deltas": (6,)}, "needs more than 6 frames, but segments have 6"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_is_allowed(make_model, options, message):
    with pytest.raises(ConfigError, match=message):
        jepa_objective.read_objective(OPTIONS | options, make_model()[0], 6)


def test_an_option_that_is_missing_is_named(make_model):
    given = {name: value for name, value in OPTIONS.items() if name != "target"}
    with pytest.raises(ConfigError, match="config.model.jepa lacks target"):
        jepa_objective.read_objective(given, make_model()[0], 6)


def test_models_that_have_no_summaries_or_no_gaze_are_refused(make_model):
    with pytest.raises(ConfigError, match="LinearNonlinear has no summaries to predict"):
        jepa_objective.read_objective(OPTIONS, LinearNonlinear((2,), (5, 5, 1)), 6)
    still = make_model(gaze="none", dynamics="none")[0]
    with pytest.raises(ConfigError, match="sees_gaze is True, but the model has no gaze code"):
        jepa_objective.read_objective(OPTIONS, still, 6)
    assert not jepa_objective.read_objective(OPTIONS | {"sees_gaze": False}, still, 6).options.sees_gaze


def test_the_slow_copy_has_trunk_and_projectors_and_follows_them(make_objective):
    objective, params, _, _ = make_objective()
    target = jepa_objective.initial_target(objective, params)
    assert set(target) == set(params) - {"readout"}
    assert all(name.startswith("projector") for name in target["jepa"])
    moved = jax.tree.map(lambda leaf: leaf + 1, params)
    after = jepa_objective.move_target(objective, target, moved, 0.25)
    share = 1 - float(target_decay(0.9, 0.25))
    assert 0.02 < share < 0.1
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(target), strict=True):
        np.testing.assert_allclose(new - old, share, rtol=1e-4)


def test_without_a_moving_average_there_is_no_slow_copy(make_objective):
    objective, params, _, _ = make_objective(target="stop_gradient")
    assert jepa_objective.initial_target(objective, params) is None
    assert jepa_objective.move_target(objective, None, params, 0.5) is None


@pytest.fixture(scope="module")
def losses(make_objective):
    """{target: (loss, gradients of the parameters, gradients of the slow copy)} of the same parameters."""
    found = {}
    for kind in jepa_objective.TARGETS:
        objective, params, state, batch = make_objective(target=kind)
        slow = jepa_objective.initial_target(objective, params)

        def loss(params, slow, given=(objective, state, batch)):
            return jepa_objective.predict_maps(given[0], params, given[1], slow, given[2], KEY).loss

        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, slow)
        found[kind] = value, *gradients
    return found


def test_a_slow_copy_that_has_not_moved_gives_the_loss_and_gradient_of_a_stopped_one(losses):
    np.testing.assert_allclose(losses["ema"][0], losses["stop_gradient"][0], rtol=1e-5)
    for left, right in zip(
        *(jax.tree.leaves(losses[kind][1]) for kind in ("ema", "stop_gradient")), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-6)


def test_no_gradient_reaches_the_slow_copy_and_only_none_lets_one_through_the_target(losses):
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(losses["ema"][2]))
    np.testing.assert_allclose(losses["none"][0], losses["stop_gradient"][0], rtol=1e-6)
    kernels = [losses[kind][1]["jepa"]["projector_0"]["out"]["kernel"] for kind in ("none", "stop_gradient")]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1 * np.abs(kernels[1]).max()


def test_trunk_gaze_code_and_head_all_learn_from_the_prediction_and_readouts_do_not(losses):
    gradients = losses["ema"][1]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients["readout"]))
    learned = {name: tree for name, tree in gradients.items() if name != "readout"}
    for name in ("filters", "gaze_encoder", "jepa"):
        for path, leaf in jax.tree.leaves_with_path(learned[name]):
            assert np.any(leaf), (name, jax.tree_util.keystr(path))


@pytest.mark.parametrize("sees_gaze", [True, False])
def test_the_gaze_of_another_example_matters_where_the_predictor_sees_it(make_objective, sees_gaze):
    objective, params, state, batch = make_objective(sees_gaze=sees_gaze)
    slow = jepa_objective.initial_target(objective, params)
    now = SimpleNamespace(params=params, model_state=state, target_params=slow)
    watched = jax.jit(lambda: jepa_objective.watch_codes(objective, now, batch))()
    masking = jax.random.key(0)  # of all evaluations
    given = (objective, params, state, slow, batch, masking)
    alone = jax.jit(lambda: jepa_objective.predict_maps(*given).loss)()
    np.testing.assert_allclose(watched["loss"], alone, rtol=1e-5)
    assert ("loss_other_gaze" in watched) == sees_gaze
    if sees_gaze:
        assert abs(watched["loss_other_gaze"] - alone) > 1e-5


def test_where_there_is_no_other_example_no_loss_with_its_gaze_is_told(make_objective):
    objective, params, state, batch = make_objective(sees_gaze=True)
    slow = jepa_objective.initial_target(objective, params)
    now = SimpleNamespace(params=params, model_state=state, target_params=slow)
    single = jax.tree.map(lambda leaf: leaf[:1], batch)
    told = jax.eval_shape(lambda: jepa_objective.watch_codes(objective, now, single))
    assert "loss" in told and "loss_other_gaze" not in told


def test_every_delta_has_its_own_context_its_own_interval_of_gaze_and_its_own_predictor(make_objective):
    deltas = (1, 3)
    objective, params, state, batch = make_objective(deltas=deltas, target="stop_gradient")

    def expected():
        last = batch.stimulus.shape[1] - 1
        frames = (*(last - delta for delta in deltas), last)
        given = (batch.stimulus, batch.gaze, frames)
        maps, behavior = objective.module.apply({"params": params, **state}, *given, method=summary_maps)
        head = {"params": params["jepa"]}
        targets = [normalize(code) for code in objective.head.apply(head, maps[-1], method="project")]
        masks = random_masks(KEY, maps[-1], ratio=objective.options.mask_ratio)
        losses = []
        for which, delta in enumerate(deltas):
            action = behavior.code[:, last + 1 - delta :].mean(1)
            _, predictions = objective.head.apply(head, maps[which], masks, action, which)
            losses += [masked_distance(*pair) for pair in zip(predictions, targets, masks, strict=True)]
        return jnp.stack(losses).mean()

    given = (objective, params, state, None, batch, KEY)
    found = jax.jit(lambda: jepa_objective.predict_maps(*given).loss)()
    np.testing.assert_allclose(found, jax.jit(expected)(), rtol=1e-5)


def test_what_is_watched_is_the_mean_over_batches_and_over_levels():
    sums = {"batches": 4.0, "loss": 2.0, "rank_0": 8.0, "rank_1": 16.0}
    expected = {"jepa/loss": 0.5, "jepa/rank_0": 2.0, "jepa/rank_1": 4.0, "jepa/rank": 3.0}
    assert jepa_objective.mean_watched(sums) == expected
