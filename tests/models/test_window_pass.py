"""Windows in blocks of pixels: the same numbers as the causal pass, whose definition they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.models import window_pass
from polarjax.models.polar_v1 import PolarV1

ALL = ("last", "fast", "slow", "derivative", "energy", "even", "odd")
FORMS = {
    "framewise": {"dynamics": "framewise", "gaze": "raw"},
    "none": {"dynamics": "none", "gaze": "none", "bias_correction": False},
    "standardized with surround": {
        "dynamics": "framewise",
        "gaze": "raw",
        "surround": 2.0,
        "standardize": True,
        "link": "exp",
    },
}


@pytest.mark.parametrize(("form", "n_frames"), [("framewise", 1), *((form, 4) for form in FORMS)])
def test_a_window_gives_the_last_bin_of_the_causal_pass_and_its_gradients(form, n_frames):
    given = {"standardize": False, **FORMS[form]}
    sizes = {"n_levels": 2, "n_pairs": 2, "kernel_size": 5, "code_width": 4}
    module = PolarV1((3, 2), (17, 13, 2), 1 / 120, 5.0, filters="separable", summaries=ALL, **sizes, **given)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        stimulus = 0.3 * jax.random.normal(keys[0], (4, n_frames, 17, 13, 2))
        gaze = jnp.cumsum(0.1 * jax.random.normal(keys[1], (4, n_frames, 2)), axis=1)
        variables = jax.jit(module.init)(keys[2], stimulus, gaze)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        assert window_pass.computes(module)

        def weighed(log_rate):
            return (log_rate * jnp.arange(1.0, 1 + log_rate.size).reshape(log_rate.shape)).sum()

        @jax.jit
        def both(params):
            def window(params):
                return weighed(module.apply({**variables, "params": params}, stimulus, gaze)[0])

            def whole(params):
                given = {**variables, "params": params}
                return weighed(module.apply(given, stimulus, gaze, None, method="advance")[1][:, -1])

            return jax.value_and_grad(window)(params), jax.value_and_grad(whole)(params)

        (found, found_slopes), (wanted, slopes) = both(variables["params"])
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        for (path, slope), expected in zip(
            jax.tree.leaves_with_path(found_slopes), jax.tree.leaves(slopes), strict=True
        ):
            scale = max(np.abs(expected).max(), 1e-6)
            np.testing.assert_allclose(slope / scale, expected / scale, rtol=0, atol=1e-8, err_msg=str(path))


@pytest.mark.parametrize("options", [{"filters": "dense"}, {"dynamics": "recurrent"}, {"dtype": "bfloat16"}])
def test_other_models_go_through_the_causal_pass(options):
    form = {"filters": "separable", "dynamics": "framewise"} | options
    assert not window_pass.computes(PolarV1((3,), (17, 13, 1), 1 / 120, 5.0, **form))
