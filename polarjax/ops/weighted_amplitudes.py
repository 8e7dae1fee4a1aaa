"""Sums over time of the amplitudes of quadrature pairs that are made of few maps, without storing an amplitude.

    S_n = sum_t w_nt A_t,   A_t = sqrt(max(e_t^2 + o_t^2, floor^2)),   e_t = x_t U,   o_t = y_t V

x and y hold c maps (channels and a one for the bias), e and o M pairs. With q = sum_n w_n dS_n / A, 0 below the
floor, the gradients need no map of e or o:

    dU_im   = sum_j U_jm sum_tp x_tpi x_tpj q_tpm          the products of maps, times q: one matrix product
    dx_tpi  = sum_j x_tpj sum_m U_im U_jm q_tpm            q times the products of weights: another
    dw_nt   = sum_pm dS_npm A_tpm
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.backend import prefers_blocks, stage
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR

BLOCK_FRAMES = 5


def weighted_amplitudes(
    weights: Float[Array, "n T"],
    mixing: tuple[Float[Array, "c M"], Float[Array, "c M"]],
    maps: tuple[Float[Array, "T P c"], Float[Array, "T P c"]],
) -> Float[Array, "n P M"]:
    """Returns the weighted sums over time of the amplitudes of M pairs.

    Args:
      mixing: U and V, what makes the even and the odd response of c maps.
      maps: x and y.
    """
    form = _in_blocks if prefers_blocks() else weighted_amplitudes_at_once
    return form(weights, mixing, maps)


def weighted_amplitudes_at_once(weights: Array, mixing: tuple, maps: tuple) -> Float[Array, "n P M"]:
    """Computes `weighted_amplitudes` as it is written: the definition, and the form for accelerators."""
    amplitude = jnp.sqrt(jnp.maximum(_power(mixing, maps), AMPLITUDE_FLOOR**2))
    return jnp.einsum("nt,tpm->npm", weights, amplitude, precision="highest")


def _power(mixing: Sequence, maps: Sequence) -> Float[Array, "*F M"]:
    """Returns e^2 + o^2; few maps are added up one by one, as a product would have to be stored."""
    even, odd = (
        sum(x[..., i, None] * weight[i].reshape((1,) * (x.ndim - 1) + (-1,)) for i in range(len(weight)))
        for x, weight in zip(maps, mixing, strict=True)
    )
    return even * even + odd * odd


@jax.custom_vjp
def _in_blocks(weights: Array, mixing: tuple, maps: tuple) -> Float[Array, "n P M"]:
    def add(total: list, frames: tuple) -> tuple:
        weight, *maps = frames
        for i in range(BLOCK_FRAMES):
            power = _power(mixing, [x[i] for x in maps])
            amplitude = jnp.sqrt(jnp.maximum(power, AMPLITUDE_FLOOR**2))
            total = [part + weight[i, n] * amplitude for n, part in enumerate(total)]
        return total, None

    start = [jnp.zeros((maps[0].shape[1], mixing[0].shape[1]), maps[0].dtype)] * len(weights)
    return jnp.stack(jax.lax.scan(add, start, (_cut(weights.T), *map(_cut, maps)))[0])


def _keep_all(weights: Array, mixing: tuple, maps: tuple) -> tuple:
    return _in_blocks(weights, mixing, maps), (weights, mixing, maps)


def _slopes(given: tuple, slopes: Float[Array, "n P M"]) -> tuple:
    weights, mixing, maps = given
    n_frames, n_pixels, depth = maps[0].shape
    products = jnp.concatenate([_products(weight.T).T for weight in mixing])

    def of_frames(total: Array, frames: tuple) -> tuple:
        weight, *maps = frames
        power = _power(mixing, maps)
        bounded = jnp.maximum(power, AMPLITUDE_FLOOR**2)
        inverse = jax.lax.rsqrt(bounded)
        slope = sum(weight[:, n, None, None] * slopes[n][None] for n in range(len(slopes)))
        q = jnp.where(power > AMPLITUDE_FLOOR**2, slope * inverse, 0)
        along = [bounded * inverse * each[None] for each in slopes]
        q, *along = stage([x.reshape(-1, x.shape[-1]) for x in (q, *along)])
        of_maps = jnp.concatenate([_products(x.reshape(-1, depth)) for x in maps], axis=1)
        total = total + jnp.dot(of_maps.T, q, precision="highest")
        one = jnp.ones(q.shape[1], q.dtype)
        of_weights = [jnp.dot(x, one, precision="highest").reshape(len(weight), -1).sum(1) for x in along]
        return total, (jnp.stack(of_weights, axis=1), jnp.dot(q, products.T, precision="highest"))

    frames = (_cut(weights.T), *map(_cut, maps))
    total, (of_weights, mixed) = jax.lax.scan(of_frames, jnp.zeros_like(products), frames)
    total = total.reshape(2, depth, depth, -1)
    of_mixing = tuple((x * weight[None]).sum(1) for x, weight in zip(total, mixing, strict=True))
    mixed = mixed.reshape(-1, n_pixels, 2, depth, depth)[:n_frames]
    of_maps = tuple(
        sum(mixed[:, :, i, :, j] * x[..., j, None] for j in range(depth)) for i, x in enumerate(maps)
    )
    return of_weights.reshape(-1, len(weights))[:n_frames].T, of_mixing, of_maps


_in_blocks.defvjp(_keep_all, _slopes)


def _products(x: Float[Array, "r c"]) -> Float[Array, "r cc"]:
    """Returns all products of two of the c numbers of a row."""
    return (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)


def _cut(x: Float[Array, "T *S"]) -> Float[Array, "b t *S"]:
    """Cuts frames into blocks, the last filled up with zeros: frames without weight."""
    padded = jnp.pad(x, [(0, -len(x) % BLOCK_FRAMES), *[(0, 0)] * (x.ndim - 1)])
    return padded.reshape(-1, BLOCK_FRAMES, *x.shape[1:])
