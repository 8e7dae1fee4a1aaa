"""Division by what is smaller."""

from __future__ import annotations

from jaxtyping import Array, Float


def divide(x: Float[Array, "*shape"], y: Float[Array, "*smaller"]) -> Float[Array, "*shape"]:
    """Returns x / y, where y is broadcast to x: as the product with 1 / y.

    XLA may turn such a division into this product in the program of one device and not in that of four, whose last
    bits then differ. A product stays what it is. tests/configs/test_gradients.py finds divisions that are left.
    """
    return x * (1 / y)
