"""Two-dimensional correlation with zero padding, as a convolution and as a matrix product."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.backend import prefers_products
from polarjax.ops.products import mix_planes

LAYOUT = ("NHWC", "HWIO", "NHWC")
FEW_OUTPUTS, FEW_OUTPUTS_TILE, MANY_OUTPUTS_TILE = 8, 4, 2


def correlate(
    x: Float[Array, "S H W *B C"],
    kernel: Float[Array, "k k i O"],
    *,
    stride: int = 1,
    groups: int = 1,
    padded: bool = True,
) -> Float[Array, "S h w *B O"]:
    """Correlates images with k x k kernels, keeping every `stride`-th sample from 0.

    Args:
      x: images; further batch axes may stand between pixels and channels.
      groups: 1 mixes all C channels (i = C); C treats each channel alone (i = 1, O a multiple of C).
      padded: with k // 2 zeros around the image, k odd; False looks at whole neighbourhoods alone.

    Returns:
      Padded, h = ceil(H / stride), w likewise, and output sample i is centred on pixel i * stride; else
      h = ceil((H - k + 1) / stride), and output sample i looks at the k pixels from i * stride.
    """
    plan = correlate_by_product if prefers_products() else correlate_by_convolution
    return plan(x, kernel, stride=stride, groups=groups, padded=padded)


def correlate_by_convolution(
    x: Float[Array, "S H W *B C"],
    kernel: Float[Array, "k k i O"],
    *,
    stride: int,
    groups: int,
    padded: bool = True,
) -> Float[Array, "S h w *B O"]:
    """Computes `correlate` by the backend's convolution: the form for accelerators."""
    batch = (x.shape[0], *x.shape[3:-1])
    images = jnp.moveaxis(x, (1, 2), (-3, -2)).reshape(-1, *x.shape[1:3], x.shape[-1])
    result = jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        [(size // 2, size // 2) if padded else (0, 0) for size in kernel.shape[:2]],
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(result.reshape(*batch, *result.shape[1:]), (-3, -2), (1, 2))


def correlate_by_product(
    x: Float[Array, "S H W *B C"],
    kernel: Float[Array, "k k i O"],
    *,
    stride: int,
    groups: int,
    padded: bool = True,
) -> Float[Array, "S h w *B O"]:
    """Computes `correlate` as one matrix product of image patches with shifted kernels: the form for CPUs.

    A patch of (s (t - 1) + k)^2 pixels gives a tile of t x t outputs, so a pixel is copied (k / (s t))^2 times and not
    (k / s)^2 times; the price is a matrix with zeros. With few outputs copying takes the time, with many the product.
    """
    if groups > 1:
        each = functools.partial(correlate_by_product, stride=stride, groups=1, padded=padded)
        kernels = kernel.reshape(*kernel.shape[:3], groups, -1)
        alone = jax.vmap(each, in_axes=(-1, -2), out_axes=-2)(x[..., None, :], kernels)
        return alone.reshape(*alone.shape[:-2], -1)
    tile = FEW_OUTPUTS_TILE if kernel.shape[3] <= FEW_OUTPUTS else MANY_OUTPUTS_TILE
    half = kernel.shape[0] // 2 if padded else 0
    height, width = (-(-(side + 2 * half - kernel.shape[0] + 1) // stride) for side in x.shape[1:3])
    patches = _patches(x, kernel.shape[0], stride, tile, half)
    matrix = _shifted_kernels(kernel, stride, tile).astype(patches.dtype)
    flat = patches.reshape(matrix.shape[0] * matrix.shape[1] * x.shape[-1], -1)
    product = mix_planes(matrix.reshape(len(flat), -1), flat)
    tiles = product.reshape(tile, tile, kernel.shape[3], *patches.shape[3:])
    rows_of_pixels = jnp.moveaxis(tiles, (3, 4, 0, 5, 1, 2), (0, 1, 2, 3, 4, -1))
    shape = (x.shape[0], tile * patches.shape[4], tile * patches.shape[5], *x.shape[3:-1], kernel.shape[3])
    return rows_of_pixels.reshape(shape)[:, :height, :width]


def cut_rows(
    x: Float[Array, "B T H W C"], *, count: int, step: int, height: int
) -> Float[Array, "B n T R W C"]:
    """Cuts n = `count` bands of R = `height` rows, one every `step` rows from 0; zeros below the last row."""
    below = max((count - 1) * step + height - x.shape[2], 0)
    padded = jnp.pad(x, [(0, 0), (0, 0), (0, below), (0, 0), (0, 0)])
    if step == height:
        # each row is in one band: the gradient of slices would add up as many images as there are bands
        whole = padded[:, :, : count * height]
        return jnp.moveaxis(whole.reshape(*x.shape[:2], count, height, *x.shape[3:]), 2, 1)
    return jnp.stack([padded[:, :, i * step : i * step + height] for i in range(count)], axis=1)


def band_patches(x: Float[Array, "R V C"], size: int, stride: int, n_pixels: int) -> Float[Array, "K p"]:
    """Cuts what each output of a band of rows reads; kernels [K, O] times it are the rows of `correlate`.

    Args:
      x: R = stride (r - 1) + k rows and V = stride (w - 1) + k columns, with their margins, zeros beyond the image.
      size: k of k x k kernels.
      n_pixels: p, at least r w.

    Returns:
      K = k k C numbers of p pixels, row by row; those beyond r w are of no meaning.
    """
    height, width = (-(-(length - size + 1) // stride) for length in x.shape[:2])
    # in two steps: so many slices in one would take minutes to compile
    across = jnp.stack([x[:, i : i + stride * (width - 1) + 1 : stride] for i in range(size)])
    # the rows that lie beside each other are those `stride` apart: so pixels of a band are one slice, filled up
    across = jnp.pad(across, [(0, 0), (0, -across.shape[1] % stride), (0, 0), (0, 0)])
    across = jnp.moveaxis(across.reshape(size, -1, stride, width, across.shape[-1]), (2, 4), (0, 2))
    flat = across.reshape(stride, size, across.shape[2], -1)
    flat = jnp.pad(flat, [(0, 0), (0, 0), (0, 0), (0, max(n_pixels - height * width, 0))])
    starts = [divmod(i, stride) for i in range(size)]
    patches = [flat[row, :, :, above * width : above * width + n_pixels] for above, row in starts]
    return jnp.concatenate(patches).reshape(size * size * x.shape[-1], n_pixels)


def correlate_band(
    size: int, stride: int, n_pixels: int, kernels: Float[Array, "O K"], x: Float[Array, "R V C"]
) -> Float[Array, "O p"]:
    """Correlates a band of rows with kernels, which are the rows of a matrix; see `band_patches`."""
    return jnp.dot(kernels, band_patches(x, size, stride, n_pixels), precision="highest")


def _patches(
    x: Float[Array, "S H W *B C"], size: int, stride: int, tile: int, half: int
) -> Float[Array, "p p C S n m *B"]:
    """Cuts what each tile of outputs reads, p = stride (tile - 1) + size pixels a side, for n x m tiles."""
    span, step = stride * (tile - 1) + size, stride * tile
    counts = [-(-(side + 2 * half - size + 1) // step) for side in x.shape[1:3]]
    margins = [
        (half, max((count - 1) * step + span - half - side, 0))
        for count, side in zip(counts, x.shape[1:3], strict=True)
    ]
    padded = jnp.pad(jnp.moveaxis(x, -1, 0), [(0, 0), (0, 0), *margins, *[(0, 0)] * (x.ndim - 4)])
    rows, columns = ((count - 1) * step + 1 for count in counts)
    across = jnp.stack([padded[:, :, :, i : i + columns : step] for i in range(span)])
    return jnp.stack([across[:, :, :, i : i + rows : step] for i in range(span)])


def _shifted_kernels(kernel: Float[Array, "k k C O"], stride: int, tile: int) -> Float[Array, "p p C t t O"]:
    """Puts the kernel, moved by the stride, under each output of a tile; 0 where an output does not look."""
    size = kernel.shape[0]
    offset = np.arange(stride * (tile - 1) + size)[:, None] - stride * np.arange(tile)[None]
    place = jnp.asarray(offset[:, :, None] == np.arange(size), kernel.dtype)
    return jnp.einsum("ytk,xul,klco->yxctuo", place, place, kernel, precision="highest")
