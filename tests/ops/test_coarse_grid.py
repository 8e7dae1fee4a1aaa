"""Means over a coarse grid: equal to means of blocks, and whole where the grid does not divide the maps."""

import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.ops.coarse_grid import coarse_grid


def test_cells_that_divide_the_maps_are_means_of_blocks():
    maps = np.random.default_rng(0).normal(size=(2, 6, 9, 4)).astype(np.float32)
    blocks = maps.reshape(2, 3, 2, 3, 3, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse_grid(jnp.asarray(maps), 3), blocks, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 5), (51, 26), (2, 1)])
def test_other_cells_span_every_row_and_column_that_they_touch(shape):
    maps = np.random.default_rng(1).normal(size=(1, *shape, 2)).astype(np.float32)
    height, width = shape
    cells = [
        [
            maps[0, i * height // 3 : -(-(i + 1) * height // 3), j * width // 3 : -(-(j + 1) * width // 3)]
            for j in range(3)
        ]
        for i in range(3)
    ]
    means = np.asarray([[cell.mean(axis=(0, 1)) for cell in row] for row in cells])
    np.testing.assert_allclose(coarse_grid(jnp.asarray(maps), 3)[0], means, rtol=1e-5, atol=1e-6)
