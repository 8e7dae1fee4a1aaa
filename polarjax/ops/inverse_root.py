"""1/sqrt(x) with the same bits in every loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.backend import prefers_arithmetic

# Halving the bits of a float halves its exponent: from this constant they are a first 1/sqrt(x), 3.5 % off at most.
FIRST_GUESS = 0x5F3759DF
N_STEPS = 3


@jax.custom_jvp
def inverse_root(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Returns 1/sqrt(x) of x > 0, in float32 for x in [1e-37, 1e37].

    Of infinity it is not a number; what it is of smaller x has no meaning (4e19 at 0), so callers have a floor.

    On a CPU by three steps of Newton, y <- y + y/2 (1 - x y^2): products and sums alone, whose result does not depend
    on where a loop is computed in vectors. The processor's own first guess for vectors is another one than for single
    numbers, and its roots and quotients take as long as ten products.

    Source: Newton's method for 1/y^2 - x; the guess is that of Quake III (Lomont 2003).
    """
    if x.dtype != jnp.float32 or not prefers_arithmetic():
        return jax.lax.rsqrt(x)
    bits = FIRST_GUESS - (jax.lax.bitcast_convert_type(x, jnp.int32) >> 1)
    y = jax.lax.bitcast_convert_type(bits, jnp.float32)
    for _ in range(N_STEPS):
        y = y + 0.5 * y * (1 - x * y * y)
    return y


@inverse_root.defjvp
def _slope(x: tuple[Array], tangent: tuple[Array]) -> tuple[Array, Array]:
    y = inverse_root(x[0])
    return y, -0.5 * y * y * y * tangent[0]


def root(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Returns sqrt(x) of x > 0 as x/sqrt(x), where the inverse is needed as well or the gradient is."""
    return x * inverse_root(x)
