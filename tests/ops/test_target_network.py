"""Target networks against the recorded updates and schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.target_network import ema, target_decay


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.996, 1.0])
def test_five_updates_equal_the_reference(golden, precision, decay):
    arrays = golden("seqjepa/ema")
    target, online = ({"w": precision.array(arrays[name])} for name in ("target0", "online0"))
    for step in range(5):
        online = {"w": online["w"] + precision.array(0.1)}
        target = ema(target, online, decay)
        precision.assert_value(target["w"], arrays[f"decay{decay:g}.step{step}"])


def test_the_decay_rises_to_one_as_in_the_reference(golden):
    expected = golden("seqjepa/ema")["schedule.epochs100.base0.996"]
    found = jax.vmap(lambda p: target_decay(0.996, p))(jnp.arange(100) / 100)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert target_decay(0.996, 1.0) == 1


def test_a_target_in_half_precision_stays_so():
    target = {"w": jnp.zeros(3, jnp.bfloat16)}
    assert ema(target, {"w": jnp.ones(3)}, jnp.asarray(0.5))["w"].dtype == jnp.bfloat16
