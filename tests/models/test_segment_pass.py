"""Segments in bands of pixels: the same numbers as the causal pass, whose definition they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.models import impulse_pass, segment_pass
from polarjax.models.polar_v1 import PolarV1

ALL = ("last", "fast", "slow", "derivative", "energy", "even", "odd")
FORMS = {
    "default": {},
    "fewer summaries, stride 2": {"summaries": ("fast", "odd"), "finest_stride": 2, "start": "drive"},
    "no amplitude": {"summaries": ("energy", "even"), "surround": 2.0},
    "newest bin": {"surround": 2.0},
    "separable": {"filters": "separable", "recurrence": "associative"},
    "framewise": {"filters": "separable", "dynamics": "framewise", "finest_stride": 2},
    "no memory": {"dynamics": "none", "gaze": "none"},
}


@pytest.mark.parametrize(
    ("form", "n_scored"), [*((form, 1 if form == "newest bin" else 3) for form in FORMS), ("no amplitude", 1)]
)
def test_a_segment_gives_the_last_bins_of_the_causal_pass_and_their_gradients(form, n_scored, monkeypatch):
    for each in (segment_pass, impulse_pass):
        monkeypatch.setattr(each, "BAND_PIXELS", 30)  # bands of rows that do not divide the levels
    given = {"summaries": ALL, **FORMS[form]}
    sizes = {"n_levels": 2, "n_pairs": 2, "kernel_size": 3, "code_width": 4, "initial_width": 0.5}
    module = PolarV1((3, 2), (17, 13, 2), 1 / 120, 5.0, **sizes, **given)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        stimulus = 0.3 * jax.random.normal(keys[0], (4, 5, 17, 13, 2))
        gaze = jnp.cumsum(0.1 * jax.random.normal(keys[1], (4, 5, 2)), axis=1)
        variables = jax.jit(module.init)(keys[2], stimulus[:, :1], gaze[:, :1])
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        assert segment_pass.computes(module, 5 - n_scored)

        def weighed(log_rate):
            return (log_rate * jnp.arange(1.0, 1 + log_rate.size).reshape(log_rate.shape)).sum()

        @jax.jit
        def both(params):
            def bands(params):
                predict = module.apply(
                    {**variables, "params": params}, stimulus, gaze, n_scored, method="predict"
                )
                return weighed(predict[0])

            def whole(params):
                given = {**variables, "params": params}
                log_rate = module.apply(given, stimulus, gaze, None, method="advance")[1]
                return weighed(log_rate[:, -n_scored:])

            return jax.value_and_grad(bands)(params), jax.value_and_grad(whole)(params)

        (found, found_slopes), (wanted, slopes) = both(variables["params"])
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        for (path, slope), expected in zip(
            jax.tree.leaves_with_path(found_slopes), jax.tree.leaves(slopes), strict=True
        ):
            scale = max(np.abs(expected).max(), 1e-6)
            np.testing.assert_allclose(slope / scale, expected / scale, rtol=0, atol=1e-8, err_msg=str(path))


def test_bfloat16_goes_through_the_causal_pass():
    assert not segment_pass.computes(PolarV1((3,), (17, 13, 1), 1 / 120, 5.0, dtype="bfloat16"), 2)


def test_memory_with_one_frame_before_the_first_scored_one_goes_through_the_causal_pass():
    assert not segment_pass.computes(PolarV1((3,), (17, 13, 1), 1 / 120, 5.0), 1)
    assert segment_pass.computes(PolarV1((3,), (17, 13, 1), 1 / 120, 5.0, dynamics="framewise"), 1)
