"""Summary maps against pooled features and the windows of the reference, and the whole JEPA loss on its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.core import ConfigError
from polarjax.interop.visioncore import import_model
from polarjax.models import impulse_pass, segment_pass
from polarjax.models.jepa_head import JepaHead, jepa_terms
from polarjax.models.jepa_pairs import context_frames
from polarjax.models.summary_maps import summary_maps
from polarjax.ops.target_network import ema
from tests.interop.reference import config_of, state_of
from tests.models.jitted import apply
from tests.models.reference_jepa import REFERENCE, reference_params

DELTA, LEVELS = 5, 4


def maps_of(module, variables, stimulus, gaze, frames):
    return module.apply(variables, stimulus, gaze, frames, method=summary_maps)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_levels": 2, "n_units": (3, 2), "finest_stride": 2},
        {"dynamics": "framewise", "bias_correction": False},
        {"dynamics": "none", "gaze": "none"},
        {"summaries": ("last", "energy"), "start": "drive", "pose_memory": False},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_pooled_maps_are_the_features_of_the_causal_pass(make_model, make_movie, options):
    module, variables = make_model(**options)
    stimulus, gaze = make_movie(batch=4)
    frames = (0, 2, 5)
    maps, behavior = apply(module, variables, stimulus, gaze, then=(frames,), method=summary_maps)
    _, _, expected = apply(module, variables, stimulus, gaze, None, method="advance")
    windows = module.apply(variables, module.frame_shape[:2], method=lambda m, size: m.units.windows(size))
    for t, levels in zip(frames, maps, strict=True):
        for level, (x, window) in enumerate(zip(levels, windows, strict=True)):
            pooled = np.einsum("bhwd,bnhw->bnd", x, np.asarray(window)[np.arange(4) % len(window)])
            np.testing.assert_allclose(pooled, expected["pooled"][:, t, :, level], rtol=2e-4, atol=2e-5)
    assert (behavior is None) == (module.dynamics == "none")


@pytest.mark.parametrize(
    "options", [{"finest_stride": 2, "n_levels": 2}, {"filters": "separable"}], ids=["dense", "separable"]
)
def test_bands_give_the_maps_and_gradients_of_the_whole(make_model, make_movie, monkeypatch, options):
    module, variables = make_model(**options)
    stimulus, gaze = make_movie(batch=4)
    monkeypatch.setattr(impulse_pass, "BAND_PIXELS", 20)  # several bands, the last of them filled up

    def value_and_slopes():
        def loss(params):
            maps, _ = maps_of(module, {**variables, "params": params}, stimulus, gaze, (2, 5))
            return sum(jnp.square(x).sum() for levels in maps for x in levels), maps

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    found = []
    for bands in (True, False):
        monkeypatch.setattr(segment_pass, "prefers_bands", lambda model, bands=bands: bands)
        found.append(jax.tree.leaves_with_path(value_and_slopes()))
    for (path, left), (_, right) in zip(*found, strict=True):
        floor = 1e-5 * np.abs(right).max()
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=floor, err_msg=jax.tree_util.keystr(path))


def test_maps_do_not_see_later_frames(make_model, make_movie):
    module, variables = make_model()
    stimulus, gaze = make_movie()
    for early, alone in zip(
        apply(module, variables, stimulus, gaze, then=((2,),), method=summary_maps)[0][0],
        apply(module, variables, stimulus[:, :3], gaze[:, :3], then=((2,),), method=summary_maps)[0][0],
        strict=True,
    ):
        np.testing.assert_allclose(early, alone, rtol=1e-5, atol=1e-6)


def test_a_frame_outside_the_segment_is_named(make_model, make_movie):
    module, variables = make_model()
    with pytest.raises(ConfigError, match="frame 6 are asked of 6 frames, 0 to 5"):
        maps_of(module, variables, *make_movie(), (6,))


def contexts_and_targets(module, params, stimulus, gaze):
    """Returns the maps of the reference's two windows, the later of which starts delta frames later."""
    last = context_frames(stimulus.shape[1], (DELTA,))
    context, target = (
        maps_of(module, {"params": params}, stimulus[:, part], gaze[:, part], last)[0][0]
        for part in (slice(None, -DELTA), slice(DELTA, None))
    )
    return context, target


def total_loss(params, heads, target_params, module, batch, masks):
    stimulus, gaze, spikes, valid = batch
    stimulus = jnp.moveaxis(stimulus, 1, -1)
    log_rate, _ = module.apply({"params": params}, stimulus, gaze)
    poisson = ((jnp.exp(log_rate) - spikes * log_rate) * valid).sum() / valid.sum()
    context, target = contexts_and_targets(module, params, stimulus, gaze)
    head = JepaHead(LEVELS, width=12, deltas=(DELTA,), **REFERENCE)
    terms = jepa_terms(head, heads, target_params, [context], target, masks, [None])
    return poisson + 0.5 * terms.loss, terms.loss


def expected_gradients(recorded, state, dtype):
    """Returns the reference's gradients of head and trunk in our layout."""
    head = reference_params(recorded, "grad.recurrent.jepa.", "proj_s", LEVELS, dtype)
    moved = {key: recorded.get(f"grad.{key}", x) for key, x in state.items()}
    return {"head": head, "trunk": import_model(config_of("polar_v1_jepa_only"), moved)[1]}


def test_the_whole_loss_and_its_gradients_equal_the_reference(golden):
    arrays, extra = (golden(f"polar/model_polar_v1_jepa_only{part}") for part in ("", "_head"))
    state, dtype = state_of(arrays), np.float64
    recorded = golden("polar/model_polar_v1_jepa_only_f64")
    recorded |= {key.removesuffix(".f64"): x for key, x in extra.items() if key.endswith(".f64")}
    jepa = {key.removeprefix("recurrent.jepa."): x for key, x in state.items() if "jepa" in key}
    with jax.enable_x64(True):
        module, params = import_model(config_of("polar_v1_jepa_only"), state)
        online, target = (reference_params(jepa, "", x, LEVELS, dtype) for x in ("proj_s", "proj_t"))
        batch = tuple(jnp.asarray(arrays[f"in.{key}"], dtype) for key in ("stim", "gaze", "robs", "dfs"))
        masks = [jnp.asarray(extra[f"in.jepa_mask{level}"])[None] for level in range(LEVELS)]
        loss = jax.jit(jax.value_and_grad(total_loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
        (total, part), gradients = loss(params, online, target, module, batch, masks)
        expected = expected_gradients(recorded, state, dtype)
    np.testing.assert_allclose(part, extra["out.jepa_loss.f64"], rtol=1e-9)
    np.testing.assert_allclose(total, extra["out.total.f64"], rtol=1e-9)
    found = jax.tree.leaves_with_path({"head": gradients[1], "trunk": gradients[0]})
    for (path, actual), wanted in zip(found, jax.tree.leaves(expected), strict=True):
        assert actual.dtype == dtype
        # They were taken with weights of which float32 is stored; see tests/ops/conftest.py.
        floor, named = 1e-6 * np.abs(wanted).max(), jax.tree_util.keystr(path)
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=floor, err_msg=named)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients[2]))


def test_the_target_after_a_step_equals_the_reference(golden):
    arrays, extra = (golden(f"polar/model_polar_v1_jepa_only{part}") for part in ("", "_head"))
    names = [key.removeprefix("out.teacher_after.") for key in extra if key.startswith("out.teacher_after.")]
    names = [name for name in names if not name.endswith(".f64")]
    target, online = (
        {name: jnp.asarray(arrays[f"p.recurrent.jepa.{kind}.{name}"]) for name in names}
        for kind in ("proj_t", "proj_s")
    )
    assert len(names) == 4 * LEVELS
    for name, moved in ema(target, online, 0.996).items():
        np.testing.assert_allclose(moved, extra[f"out.teacher_after.{name}"], rtol=2e-5, atol=2e-5)


def test_the_maps_of_a_window_equal_the_reference(golden):
    arrays, extra = (golden(f"polar/model_polar_v1_jepa_only{part}") for part in ("", "_head"))
    module, params = import_model(config_of("polar_v1_jepa_only"), state_of(arrays))
    stimulus = jnp.moveaxis(jnp.asarray(arrays["in.stim"]), 1, -1)
    given = (stimulus, jnp.asarray(arrays["in.gaze"]))
    levels = apply(module, {"params": params}, *given, then=((8,),), method=summary_maps)[0][0]
    for level in (2, 3):
        found = jnp.moveaxis(levels[level], -1, 1)
        np.testing.assert_allclose(found, extra[f"mid.feats{level}"], rtol=2e-5, atol=2e-5)
