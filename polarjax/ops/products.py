"""Products of matrices whose gradients are products that a CPU's library has.

XLA gives a product of float32 to that library where the left matrix is multiplied along its rows as they lie in memory.
All others go to a second library, which cuts a long sum into as many parts as XLA has threads. These are as many as
there are cores or devices, whichever are more, so the last bits would know the number of devices. JAX's gradient of
x W is of the second kind: the sum over all rows of x, made the other way round and turned afterwards.
tests/configs/test_gradients.py finds such products that are left.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def over_rows(x: Float[Array, "*n i"], y: Float[Array, "*n j"]) -> Float[Array, "i j"]:
    """Returns X^T Y, the sum of the outer products of rows."""
    return jnp.matmul(_flat(x).T, _flat(y), precision="highest")


def _keep_rows(x: Array, y: Array) -> tuple:
    return over_rows(x, y), (x, y)


def _slopes_of_rows(given: tuple, slope: Float[Array, "i j"]) -> tuple[Array, Array]:
    x, y = given
    return jnp.dot(y, slope.T, precision="highest"), jnp.dot(x, slope, precision="highest")


over_rows.defvjp(_keep_rows, _slopes_of_rows)


@jax.custom_vjp
def project(x: Float[Array, "*n k"], kernel: Float[Array, "k m"]) -> Float[Array, "*n m"]:
    """Returns X W: every row x becomes W^T x. Both have one type."""
    return jnp.dot(x, kernel, precision="highest")


def _keep_projection(x: Array, kernel: Array) -> tuple:
    return project(x, kernel), (x, kernel)


def _slopes_of_projection(given: tuple, slope: Float[Array, "*n m"]) -> tuple[Array, Array]:
    x, kernel = given
    return jnp.dot(slope, kernel.T, precision="highest"), over_rows(x, slope)


project.defvjp(_keep_projection, _slopes_of_projection)


@jax.custom_vjp
def mix_planes(mixing: Float[Array, "C M"], x: Float[Array, "C p"]) -> Float[Array, "M p"]:
    """Returns W^T X: C channels of p pixels mixed into M maps."""
    return jnp.dot(mixing.T, x, precision="highest")


def _keep_planes(mixing: Array, x: Array) -> tuple:
    return mix_planes(mixing, x), (mixing, x)


def _slopes_of_planes(given: tuple, slope: Float[Array, "M p"]) -> tuple[Array, Array]:
    mixing, x = given
    return jnp.einsum("cp,mp->cm", x, slope, precision="highest"), jnp.dot(mixing, slope, precision="highest")


mix_planes.defvjp(_keep_planes, _slopes_of_planes)


@jax.custom_vjp
def pool_rows(maps: Float[Array, "R p"], window: Float[Array, "N p"]) -> Float[Array, "R N"]:
    """Returns X V^T: every map weighed with every window and summed over p pixels."""
    return jnp.einsum("rp,np->rn", maps, window, precision="highest")


def _keep_pooled(maps: Array, window: Array) -> tuple:
    return pool_rows(maps, window), (maps, window)


def _slopes_of_pooled(given: tuple, slope: Float[Array, "R N"]) -> tuple[Array, Array]:
    maps, window = given
    return jnp.dot(slope, window, precision="highest"), over_rows(slope, maps)


pool_rows.defvjp(_keep_pooled, _slopes_of_pooled)


def _flat(x: Float[Array, "*n i"]) -> Float[Array, "N i"]:
    return x.reshape(-1, x.shape[-1])
