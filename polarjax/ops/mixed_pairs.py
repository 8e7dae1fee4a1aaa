"""Amplitudes and poses of quadrature pairs that are mixed from few maps, with gradients written by hand.

x and y hold c channels, e = x U and o = y V of M pairs, where the last row of U and V is the bias: with a channel of
ones more, x_c = y_c = 1. Sums of amplitudes over time:

    S_n = sum_t w_nt A_t,   A = sqrt(max(e^2 + o^2, floor^2))

With q = sum_n w_n dS_n / A, 0 below the floor, their gradients need no map of e or o:

    dU_im   = sum_j U_jm sum_tp x_tpi x_tpj q_tpm          the products of maps, times q: one matrix product
    dx_tpi  = sum_j x_tpj sum_m U_im U_jm q_tpm            q times the products of weights: another
    dw_nt   = sum_pm dS_npm A_tpm

What JAX derives from the same formulas takes ten times as long on a CPU: it stores every map, and its sums over pixels
are made number by number. The plain formulas stand beside as definition and are what accelerators compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.backend import prefers_blocks
from polarjax.ops.dynamics import rotate
from polarjax.ops.inverse_root import inverse_root
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR, decompose

BLOCK_FRAMES = 5


def weighted_amplitudes(
    weights: Float[Array, "n T"],
    mixing: tuple[Float[Array, "d M"], ...],
    maps: tuple[Float[Array, "T P c"], ...],
) -> Float[Array, "n P M"]:
    """Returns the weighted sums over time of the amplitudes of M pairs.

    Args:
      mixing: U and V, what makes the even and the odd response of c maps; d = c + 1, the last row is the bias.
      maps: x and y.
    """
    form = _in_blocks if prefers_blocks() else weighted_amplitudes_at_once
    return form(weights, mixing, maps)


def weighted_amplitudes_at_once(weights: Array, mixing: tuple, maps: tuple) -> Float[Array, "n P M"]:
    """Computes `weighted_amplitudes` as it is written: the definition, and the form for accelerators."""
    amplitude = jnp.sqrt(jnp.maximum(_power(mixing, maps), AMPLITUDE_FLOOR**2))
    return jnp.einsum("nt,tpm->npm", weights, amplitude, precision="highest")


def _power(mixing: Sequence, maps: Sequence) -> Float[Array, "*F M"]:
    """Returns e^2 + o^2."""
    even, odd = _respond(mixing, maps)
    return even * even + odd * odd


def _respond(mixing: Sequence, maps: Sequence) -> list[Float[Array, "*F M"]]:
    """Returns e and o; few maps are added up one by one, as a product would have to be stored."""
    responses = []
    for x, weight in zip(maps, mixing, strict=True):
        weights = jnp.expand_dims(weight, tuple(range(1, x.ndim)))
        response = x[..., 0, None] * weights[0]
        for i in range(1, len(weights) - 1):
            response = response + x[..., i, None] * weights[i]
        responses.append(response + weights[-1])
    return responses


@jax.custom_vjp
def _in_blocks(weights: Array, mixing: tuple, maps: tuple) -> Float[Array, "n P M"]:
    def add(total: list, frames: tuple) -> tuple:
        weight, *maps = frames
        for i in range(len(weight)):
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
    pairs, flat = _pairs(depth), [each.reshape(-1) for each in slopes]
    products = jnp.stack([weight[i] * weight[j] for weight in mixing for i, j in pairs])

    def of_frames(total: Array, frames: tuple) -> tuple:
        weight, *maps = frames
        # one root in one loop, and quotients: of products with 1/A each sum would compute the root again
        power = _power(mixing, maps)
        bounded = jnp.maximum(power, AMPLITUDE_FLOOR**2)
        amplitude = jnp.sqrt(bounded)
        slope = sum(weight[:, n, None, None] * slopes[n][None] for n in range(len(slopes)))
        q = jnp.where(power > AMPLITUDE_FLOOR**2, slope * amplitude / bounded, 0).reshape(-1, power.shape[-1])
        along = amplitude.reshape(len(weight), -1)
        of_weights = [jnp.dot(along, each, precision="highest") for each in flat]
        rows = [_with_one(x.reshape(-1, depth)) for x in maps]
        of_maps = jnp.stack([x[i] * x[j] for x in rows for i, j in pairs] + [rows[0][-1]])
        total = total + jnp.dot(of_maps, q, precision="highest")
        return total, (jnp.stack(of_weights, axis=1), jnp.dot(q, products.T, precision="highest"))

    start = jnp.zeros((len(products) + 1, products.shape[1]), products.dtype)
    total, (of_weights, mixed) = jax.lax.scan(of_frames, start, (_cut(weights.T), *map(_cut, maps)))
    mixed = mixed.reshape(-1, n_pixels, 2, len(pairs))[:n_frames]
    of_mixing, of_maps = [], []
    for k, (weight, x) in enumerate(zip(mixing, maps, strict=True)):
        of_pairs = dict(zip(pairs, total[k * len(pairs) : (k + 1) * len(pairs)], strict=True))
        of_pairs[depth, depth] = total[-1]
        of_mixing.append(jnp.stack(_weigh_pairs(of_pairs, list(weight), depth + 1)))
        of_pairs = dict(zip(pairs, jnp.moveaxis(mixed[:, :, k], -1, 0), strict=True))
        of_maps.append(jnp.stack(_weigh_pairs(of_pairs, _with_one(x), depth), axis=-1))
    return of_weights.reshape(-1, len(weights))[:n_frames].T, tuple(of_mixing), tuple(of_maps)


_in_blocks.defvjp(_keep_all, _slopes)


def _pairs(depth: int) -> list[tuple[int, int]]:
    """Returns the pairs i <= j of c channels and a one, without that of the one with itself."""
    return [(i, j) for i in range(depth) for j in range(i, depth + 1)]


def _weigh_pairs(of_pairs: dict[tuple[int, int], Array], row: list[Array], count: int) -> list:
    """Returns sum_j row_j pair_ij of the first i, where pair_ij is pair_ji."""
    return [sum(of_pairs[min(i, j), max(i, j)] * x for j, x in enumerate(row)) for i in range(count)]


def _with_one(x: Float[Array, "*F c"]) -> list[Float[Array, "*F"]]:
    """Returns the channels and a one."""
    return [*jnp.moveaxis(x, -1, 0), jnp.ones_like(x[..., 0])]


def _cut(x: Float[Array, "T *S"]) -> Float[Array, "b t *S"]:
    """Cuts frames into blocks, the last filled up with zeros: frames without weight."""
    size = min(len(x), BLOCK_FRAMES)
    padded = jnp.pad(x, [(0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)])
    return padded.reshape(-1, size, *x.shape[1:])


def turned_poses(
    floor: float,
    mixing: tuple[Float[Array, "d M"], ...],
    maps: tuple[Float[Array, "P c"], ...],
    turn: tuple[Float[Array, "1 M"], ...],
) -> tuple[Float[Array, "P M"], Float[Array, "P M"]]:
    """Returns the poses (e, o)/sqrt(max(e^2 + o^2, floor^2)) of one frame, turned.

    Args:
      turn: cosine and sine of the angle of every pair.
    """
    form = _turned_poses if prefers_blocks() else turned_poses_at_once
    return form(floor, mixing, maps, turn)


def turned_poses_at_once(floor: float, mixing: tuple, maps: tuple, turn: tuple) -> tuple[Array, Array]:
    """Computes `turned_poses` as it is written: the definition, and the form for accelerators."""
    _, *pose = decompose(*_respond(mixing, maps), pose_floor=floor)
    return rotate(*pose, *(jnp.broadcast_to(part, pose[0].shape) for part in turn))


_turned_poses = jax.custom_vjp(turned_poses_at_once, nondiff_argnums=(0,))


def _keep_given(floor: float, mixing: tuple, maps: tuple, turn: tuple) -> tuple:
    return turned_poses_at_once(floor, mixing, maps, turn), (mixing, maps, turn)


def _slopes_of_poses(floor: float, given: tuple, slopes: tuple) -> tuple:
    mixing, maps, (cosine, sine) = given
    even, odd = _respond(mixing, maps)
    power = even * even + odd * odd
    scale = inverse_root(jnp.maximum(power, floor**2))
    even, odd = even * scale, odd * scale
    of_turn = (slopes[0] * even + slopes[1] * odd, slopes[1] * even - slopes[0] * odd)
    back = rotate(*slopes, *(jnp.broadcast_to(part, even.shape) for part in (cosine, -sine)))
    along = jnp.where(power > floor**2, even * back[0] + odd * back[1], 0)
    inner = (scale * (back[0] - even * along), scale * (back[1] - odd * along))
    one = jnp.ones((1, len(even)), even.dtype)
    affine = (jnp.concatenate([x.T, one]) for x in maps)
    return (
        tuple(jnp.dot(x, slope, precision="highest") for x, slope in zip(affine, inner, strict=True)),
        tuple(jnp.dot(slope, w[:-1].T, precision="highest") for w, slope in zip(mixing, inner, strict=True)),
        tuple(jnp.dot(one, part, precision="highest") for part in of_turn),
    )


_turned_poses.defvjp(_keep_given, _slopes_of_poses)
