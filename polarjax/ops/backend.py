"""What differs by backend, in one place. The values are the same on all of them."""

from __future__ import annotations

from typing import Any

import jax


def prefers_products() -> bool:
    """Whether correlations should be matrix products.

    Inside a loop XLA:CPU runs convolutions element by element, 20 times slower than the same sums as a product.
    """
    return jax.default_backend() == "cpu"


def prefers_blocks() -> bool:
    """Whether work should go block by block, so that what it needs stays in the cache; accelerators want it whole."""
    return jax.default_backend() == "cpu"


def stage(values: Any) -> Any:
    """Marks values that are worth computing once.

    XLA:CPU fuses long chains of cheap operations and computes their beginnings again for every use; a boundary
    costs a pass over memory and saves that, and four fifths of the compile time. Accelerators fuse well: there it
    does nothing.
    """
    return jax.lax.optimization_barrier(values) if jax.default_backend() == "cpu" else values
