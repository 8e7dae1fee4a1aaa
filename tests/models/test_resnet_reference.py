"""The residual network with a convolutional GRU against the reference's tiny models: rates, loss, every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.gaussian_pooling import normalized_gaussian
from tests.interop.reference import state_of
from tests.models import reference_resnet


@pytest.mark.parametrize("name", reference_resnet.MODELS)
def test_rates_loss_and_every_gradient_equal_the_reference(golden, name):
    arrays = golden(f"polar/baseline_{name}")
    stimulus = reference_resnet.adapt((arrays["in.stim_u8"][:, 0] - 127.0) / 255)
    np.testing.assert_allclose(stimulus[0], arrays["mid.adapters.0.b0"][0, 0], atol=2e-6)
    module, (tree, behavior) = reference_resnet.make(name), reference_resnet.parameters(state_of(arrays))
    movie = jnp.asarray(stimulus[..., None], jnp.float32)

    def loss(params, behavior):
        code = jnp.dot(arrays["in.behavior"], behavior[0], precision="highest") + behavior[1][None]
        given = (movie, jnp.repeat(code[:, None], movie.shape[1], axis=1))
        log_rate = module.apply({"params": params}, *given, method="predict_window")[0][:, 0]
        losses = jnp.exp(log_rate) - arrays["in.robs"] * log_rate
        return (losses * arrays["in.dfs"]).sum() / arrays["in.dfs"].sum(), log_rate

    given = jax.tree.map(jnp.asarray, (reference_resnet.in_degrees(tree), behavior))
    (value, log_rate), slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(*given)
    np.testing.assert_allclose(log_rate, arrays["out.rhat"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(value, arrays["out.loss"], rtol=2e-5, atol=2e-5)
    expected, of_behavior = reference_resnet.parameters(state_of(arrays, "grad."))
    expected = (reference_resnet.slopes_in_degrees(expected, tree), of_behavior)
    assert jax.tree.structure(slopes) == jax.tree.structure(expected)
    for (path, slope), wanted in zip(
        jax.tree.leaves_with_path(slopes), jax.tree.leaves(expected), strict=True
    ):
        # the readout's Gaussians are round, so their angles have no gradient but rounding
        floor = 1e-9 if "angle" in str(path) else 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(slope, wanted, rtol=1e-3, atol=floor, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("case", ["default", "random"])
def test_the_gaussian_readout_equals_the_reference(golden, case):
    arrays = golden("polar/dynamic_gaussian_readout")

    def read(name):
        return arrays[f"{case}.p.{name}"]

    height, width = arrays[f"{case}.mask"].shape[1:]
    positions = (np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height))
    positions = tuple(jnp.asarray(x, jnp.float32) for x in positions)

    def drive(mean, std, theta, features, bias):
        mask = normalized_gaussian(
            mean[:, ::-1] * jnp.asarray([[1.0, -1.0]]), jnp.log(std[:, ::-1]), theta, positions
        )
        maps = jnp.asarray(arrays[f"{case}.x"][:, :, -1])
        pooled = jnp.einsum("nhw,bchw->bnc", mask, maps, precision="highest")
        return jnp.einsum("bnc,nc->bn", pooled, features, precision="highest") + bias[None], mask

    names = ("mean", "std", "theta", "features.weight", "bias")
    given = [jnp.asarray(read(name)) for name in names]
    given[3] = given[3][:, :, 0, 0]
    out, pull, mask = jax.vjp(drive, *given, has_aux=True)
    np.testing.assert_allclose(out, arrays[f"{case}.out"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(mask, arrays[f"{case}.mask"], rtol=2e-5, atol=2e-5)
    for name, slope in zip(names, pull(jnp.asarray(arrays[f"{case}.w"])), strict=True):
        wanted = arrays[f"{case}.grad.{name}"].reshape(slope.shape)
        # round Gaussians have no angle: what is left is rounding
        floor = max(1e-5 * np.abs(wanted).max(), 2e-8)
        np.testing.assert_allclose(slope, wanted, rtol=1e-3, atol=floor, err_msg=name)
