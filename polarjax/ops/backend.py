"""What differs by backend, in one place. The values are the same on all of them."""

from __future__ import annotations

import jax


def prefers_products() -> bool:
    """Whether correlations should be matrix products.

    Inside a loop XLA:CPU runs convolutions element by element, 20 times slower than the same sums as a product.
    """
    return jax.default_backend() == "cpu"


def prefers_blocks() -> bool:
    """Whether work should go block by block, so that what it needs stays in the cache; accelerators want it whole."""
    return jax.default_backend() == "cpu"


def prefers_arithmetic() -> bool:
    """Whether roots should be made of products and sums; accelerators have units for them."""
    return jax.default_backend() == "cpu"
