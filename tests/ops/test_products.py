"""Products whose gradients a CPU's library has: their values, their gradients, and that the library gets them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops import products
from tests.programs import turned_products

FORMS = {
    "over_rows": (products.over_rows, "ni,nj->ij", (3, 4), (3, 5)),
    "project": (products.project, "abk,km->abm", (3, 4, 5), (5, 6)),
    "mix_planes": (products.mix_planes, "cm,cp->mp", (3, 4), (3, 5)),
    "pool_rows": (products.pool_rows, "rp,np->rn", (3, 4), (5, 4)),
}


@pytest.mark.parametrize("name", FORMS)
def test_products_and_their_slopes_are_those_of_the_sum(name):
    function, equation, *shapes = FORMS[name]
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x, y = (jnp.asarray(random.standard_normal(shape)) for shape in shapes)
        found, pull = jax.vjp(function, x, y)
        expected, pull_plainly = jax.vjp(lambda x, y: jnp.einsum(equation, x, y), x, y)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        slope = jnp.asarray(random.standard_normal(expected.shape))
        for part, wanted in zip(pull(slope), pull_plainly(slope), strict=True):
            np.testing.assert_allclose(part, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_the_library_gets_the_products_of_the_gradient(name):
    function, equation, *shapes = FORMS[name]
    x, y = (jnp.ones(tuple(8 * size for size in shape)) for shape in shapes)

    def turned(product):
        slope = jax.grad(lambda x, y: jnp.square(product(x, y)).sum(), argnums=(0, 1))
        return turned_products(jax.jit(slope).lower(x, y).compile().as_text())

    assert not turned(function)
    assert turned(lambda x, y: jnp.einsum(equation, x, y))


def test_bits_do_not_know_how_many_threads_xla_has():
    """XLA has at least a thread a device; with a plain product in place of this one the bits differ."""
    program = """
import os
from polarjax.engine.cpu_flags import add_cpu_flags
add_cpu_flags(os.environ)
import hashlib
import jax
import jax.numpy as jnp
import numpy as np
from polarjax.ops.products import project
x, kernel = (jnp.asarray(np.random.default_rng(0).normal(size=size), "float32") for size in ((2000, 32), (32, 32)))
slope = jax.jit(jax.grad(lambda kernel: jnp.square(project(x, kernel)).sum()))(kernel)
print(jax.device_count(), hashlib.sha256(np.asarray(slope)).hexdigest())
"""
    found = {}
    for count in (1, 16):
        flags = f"--xla_force_host_platform_device_count={count}"
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, check=True
        )
        devices, found[count] = done.stdout.split()
        assert int(devices) == count
    assert found[1] == found[16]
