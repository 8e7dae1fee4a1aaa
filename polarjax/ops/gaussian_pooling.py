"""Gaussian pooling windows of readout units over the maps of a pyramid level."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polarjax.ops.division import divide
from polarjax.ops.inverse_root import root
from polarjax.ops.products import project


def _offsets(positions: Float[Array, " P"], centre: Float[Array, "*N 1"]) -> Float[Array, "*N P"]:
    return jnp.expand_dims(positions, tuple(range(centre.ndim - 1))) - centre


def correlated_gaussian(
    mean: Float[Array, "*N 2"],
    log_width: Float[Array, "*N 2"],
    correlation: Float[Array, "*N"],
    shape: tuple[int, int],
) -> Float[Array, "*N H W"]:
    """Returns the reference's readout masks, which are not normalised.

        G = exp(-[X^2 + Y^2 - 2 r X Y] / (2 (1 - r^2 + 1e-6))),   X = (x - mu_x)/s_x,   s = exp(log s) + 1e-6

    with r = tanh(correlation) and x, y on linspace(-1, 1) of this level, so the same mean lies on different places
    of different levels.

    Args:
      mean: (x, y) in units where the level spans [-1, 1].

    Source: VisionCore's Polar-V1.
    """
    # numpy's linspace(-1, 1, 1) is -1, as the reference's is
    y, x = (jnp.asarray(np.linspace(-1, 1, n), mean.dtype) for n in shape)
    width = jnp.exp(log_width) + 1e-6
    across = divide(_offsets(x, mean[..., :1]), width[..., :1])[..., None, :]
    down = divide(_offsets(y, mean[..., 1:]), width[..., 1:])[..., :, None]
    r = jnp.tanh(correlation)[..., None, None]
    squares = across**2 + down**2 - 2 * r * across * down
    return jnp.exp(-divide(squares, 2 * (1 - r**2 + 1e-6)))


def level_positions(
    level_shape: tuple[int, int],
    frame_shape: tuple[int, int],
    pixel_stride: int,
    pixels_per_degree: float,
    first_pixel: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns x [W] and y [H] of a level's samples in degrees from the centre of the frame, x right, y up.

    Sample i of a level lies on pixel first_pixel + i * pixel_stride of the frame: levels that all begin on pixel 0 are
    co-registered.
    """
    height, width = level_shape
    x = (first_pixel + np.arange(width) * pixel_stride - (frame_shape[1] - 1) / 2) / pixels_per_degree
    y = ((frame_shape[0] - 1) / 2 - first_pixel - np.arange(height) * pixel_stride) / pixels_per_degree
    return x, y


def normalized_gaussian(
    mean: Float[Array, "*N 2"],
    log_width: Float[Array, "*N 2"],
    angle: Float[Array, "*N"],
    positions: tuple[Float[Array, " W"], Float[Array, " H"]],
) -> Float[Array, "*N H W"]:
    """Returns Gaussian windows that sum to 1 over the samples of a level.

        G = softmax_hw(-(u^2 + v^2)/2),   (u, v) = rotation by -angle of (x - mu_x, y - mu_y), divided by the widths

    Args:
      mean: (x, y), degrees from the centre of the frame.
      log_width: log of the two standard deviations, log degrees.
      angle: of the first axis, rad.
      positions: x and y of the samples, degrees.

    Source: Gaussian readout of Lurz et al. (2021), made a normalised window.
    """
    x, y = _offsets(positions[0], mean[..., :1]), _offsets(positions[1], mean[..., 1:])
    cosine, sine = jnp.cos(angle)[..., None, None], jnp.sin(angle)[..., None, None]
    inverse = jnp.exp(-log_width)
    u = (cosine * x[..., None, :] + sine * y[..., :, None]) * inverse[..., :1, None]
    v = (-sine * x[..., None, :] + cosine * y[..., :, None]) * inverse[..., 1:, None]
    exponent = -(u**2 + v**2) / 2
    # softmax, by hand for the sake of its division
    largest = jax.lax.stop_gradient(exponent.max((-2, -1), keepdims=True))
    density = jnp.exp(exponent - largest)
    return divide(density, density.sum((-2, -1), keepdims=True))


def pool(features: Float[Array, "K S H W B M"], window: Float[Array, "S N H W"]) -> Float[Array, "K S N B M"]:
    """Pools the maps of K frames with the windows of each session's units: one matrix product a frame and session.

    Mixing channels after pooling is the same algebra as mixing before, and far cheaper for many units.
    """
    frames, sessions, height, width, *rest = features.shape
    flat = jnp.broadcast_to(
        window.reshape(1, *window.shape[:2], -1), (frames, *window.shape[:2], height * width)
    )
    pixels = features.reshape(frames, sessions, height * width, -1)
    pooled = jax.vmap(jax.vmap(project))(flat, pixels)
    return pooled.reshape(*pooled.shape[:3], *rest)


def local_contrast(
    frames: Float[Array, "B n H W C"], window: Float[Array, "S N H W"]
) -> Float[Array, "B n N"]:
    """Returns the RMS contrast under windows that sum to 1; example i has the windows of session i % S.

        c = sqrt(max(mean over channels of (sum G x^2 - (sum G x)^2), 1e-6))

    Source: local contrast of Bonin, Mante & Carandini (2005).
    """
    sessions, units = window.shape[:2]
    grouped = frames.reshape(-1, sessions, *frames.shape[1:])
    equation, highest = "bsthwc,snhw->bstnc", jax.lax.Precision.HIGHEST
    mean = jnp.einsum(equation, grouped, window, precision=highest)
    variance = (jnp.einsum(equation, grouped**2, window, precision=highest) - mean**2).mean(-1)
    return root(jnp.maximum(variance, 1e-6)).reshape(*frames.shape[:2], units)


@jax.custom_vjp
def pool_flat(
    window: Float[Array, "W P"], features: tuple[Float[Array, "P M"], ...]
) -> tuple[Float[Array, "W M"], ...]:
    """Pools maps of P pixels; the gradient has the products that a CPU's library knows, with the window turned once."""
    return tuple(jnp.dot(window, x, precision="highest") for x in features)


def _keep_flat(window: Array, features: tuple) -> tuple:
    return pool_flat(window, features), (window, features)


def _slopes_of_flat(given: tuple, slopes: tuple) -> tuple:
    window, features = given
    # the barrier keeps XLA from folding the turning into the products also where its flags let it: see `ops.products`
    turned = jax.lax.optimization_barrier(window.T)
    of_window = [
        jnp.einsum("wm,pm->wp", slope, x, precision="highest")
        for slope, x in zip(slopes, features, strict=True)
    ]
    return sum(of_window), tuple(jnp.dot(turned, slope, precision="highest") for slope in slopes)


pool_flat.defvjp(_keep_flat, _slopes_of_flat)
