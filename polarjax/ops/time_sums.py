"""Weighted sums over time of the amplitudes and poses of quadrature pairs, with a gradient written by hand.

    e, o = respond(band_t),   A, U = decompose(e, o)
    S_j  = sum_t w_jt A_t                       weights that are alike for all pairs
    P_i  = sum_t v_it Ue_t + v_i,T+t Uo_t       of every pair its own

A recurrence that is linear, with coefficients alike at all positions, holds such sums at every frame. Where few frames
are asked for they take its place: products of matrices, of which no frame waits for another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.pair_frames import halves, pull_back, put, turn_filters
from polarjax.ops.polar_decomposition import decompose, observe, slopes_of_pair


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_over_time(
    pose_floor: float,
    respond: Callable[[Any, Any], Float[Array, "R p"]],
    filters: Any,
    bands: Any,
    shares: Float[Array, "J T"],
    turns: Float[Array, "M I K"],
) -> tuple[Float[Array, "b J M p"], Float[Array, "b I M p"]]:
    """Returns S and P of b bands of p pixels.

    One frame of one band after the other is filtered. The responses are kept for the gradient: b T R p numbers, to be
    computed again where `jax.checkpoint` stands around.

    Args:
      respond: (filters, one frame of a band) -> e of all pairs, then o.
      bands: arrays [b, T, ..].
      shares: w.
      turns: v, K = 2 T; empty, K = 0, where no pose is asked for.
    """
    return _sum_bands(pose_floor, respond, filters, bands, shares, turns, keeps=False)[0]


def sum_over_time_at_once(
    pose_floor: float,
    responses: Float[Array, "T R p"],
    shares: Float[Array, "J T"],
    turns: Float[Array, "M I K"],
) -> tuple[Float[Array, "J M p"], Float[Array, "I M p"]]:
    """Computes `sum_over_time` of responses as it is written: the definition, and the form for accelerators."""
    amplitude, even, odd = decompose(*halves(responses), pose_floor=pose_floor)
    sums = jnp.einsum("jt,tmp->jmp", shares, amplitude, precision="highest")
    poses = jnp.concatenate([even, odd])[: turns.shape[2]]
    return sums, jnp.einsum("mik,kmp->imp", turns, poses, precision="highest")


def _sum_bands(
    pose_floor: float,
    respond: Callable,
    filters: Any,
    bands: Any,
    shares: Array,
    turns: Array,
    *,
    keeps: bool,
) -> tuple[tuple[Array, Array], Float[Array, "c R p"]]:
    """Returns the sums, and the responses to all frames of one band after the other where they are kept."""
    n_frames, n_bands = shares.shape[1], len(jax.tree.leaves(bands)[0])
    first = jax.tree.map(lambda x: x[0, 0], bands)
    shape = jax.eval_shape(respond, filters, first)

    def of_frame(carry: tuple, frame: tuple) -> tuple[tuple, None]:
        work, kept = carry
        t, place, image = frame
        responses = respond(filters, image)
        if keeps:
            kept = jax.lax.dynamic_update_index_in_dim(kept, responses, place, 0)
        return (_see(pose_floor, work, t, responses), kept), None

    def of_band(carry: tuple, given: tuple) -> tuple[tuple, tuple]:
        index, band = given
        times = jnp.arange(n_frames)
        (work, kept), _ = jax.lax.scan(of_frame, carry, (times, index * n_frames + times, band))
        amplitude, pose = work
        sums = jnp.dot(shares, amplitude.reshape(n_frames, -1), precision="highest")
        turned = jnp.swapaxes(jnp.einsum("mik,mkp->mip", turns, pose, precision="highest"), 0, 1)
        return (work, kept), (sums.reshape(-1, *amplitude.shape[1:]), turned)

    kept = jnp.zeros((n_bands * n_frames if keeps else 0, *shape.shape), shape.dtype)
    carry = (_empty(shape, n_frames, turns), kept)
    (_, kept), sums = jax.lax.scan(of_band, carry, (jnp.arange(n_bands), bands))
    return sums, kept


def _empty(shape: Any, n_frames: int, turns: Array) -> tuple[Float[Array, "T M p"], Float[Array, "M K p"]]:
    """Returns work arrays for amplitudes and poses of a band."""
    n_pairs, n_pixels = shape.shape[0] // 2, shape.shape[1]
    return (
        jnp.zeros((n_frames, n_pairs, n_pixels), shape.dtype),
        jnp.zeros((n_pairs, turns.shape[2], n_pixels), shape.dtype),
    )


def _see(pose_floor: float, work: tuple, t: Array, responses: Float[Array, "R p"]) -> tuple:
    """Writes amplitude and pose of a frame into the work arrays."""
    amplitudes, poses = work
    amplitude, *pose = decompose(*halves(responses), pose_floor=pose_floor)
    amplitudes = jax.lax.dynamic_update_index_in_dim(amplitudes, amplitude, t, 0)
    if poses.shape[1]:
        for index, x in enumerate(pose):
            poses = jax.lax.dynamic_update_index_in_dim(poses, x, index * len(amplitudes) + t, 1)
    return amplitudes, poses


def _keep(pose_floor: float, respond: Callable, *given: Any) -> tuple:
    sums, kept = _sum_bands(pose_floor, respond, *given, keeps=True)
    return sums, (*given, kept)


def _slopes(pose_floor: float, respond: Callable, given: tuple, slopes: tuple) -> tuple:
    filters, bands, shares, turns, kept = given
    turned = turn_filters(filters)
    n_frames, n_pairs, n_pixels = shares.shape[1], len(turns), kept.shape[2]
    weights = (shares.T, _by_frame(turns, n_frames))

    def of_band(carry: tuple, given: tuple) -> tuple[tuple, Any]:
        work, slope, of_filters, of_shares, of_turns = carry
        index, band, of_sums, of_poses = given
        places = (jnp.arange(n_frames), index * n_frames + jnp.arange(n_frames))

        def see(work: tuple, place: tuple) -> tuple[tuple, None]:
            return _see(pose_floor, work, place[0], kept[place[1]]), None

        work, _ = jax.lax.scan(see, work, places)
        # a product a pair: one with the pixels of all pairs between so few rows and columns takes three times as long
        of_shares = of_shares + jnp.einsum("jmp,tmp->mjt", of_sums, work[0], precision="highest")
        of_turns = of_turns + jnp.einsum("mkp,imp->mki", work[1], of_poses, precision="highest")

        def of_frame(carry: tuple, frame: tuple) -> tuple[tuple, Any]:
            slope, of_filters = carry
            place, image, share, turn = frame
            none = jnp.zeros_like(of_sums[0])
            # made in the loop that needs them: those of all frames at once would not stay in the cache
            parts = ((share[:, None, None], of_sums), *((part[:, :, None], of_poses) for part in turn))
            along, *across = (sum((w * x for w, x in zip(*part, strict=True)), none) for part in parts)
            seen = observe(*halves(kept[place]), pose_floor=pose_floor)
            slope = put(slope, slopes_of_pair(seen, along, across, pose_floor=pose_floor))
            of_filter, of_image = pull_back(respond, turned, image, slope)
            return (slope, jax.tree.map(jnp.add, of_filters, of_filter)), of_image

        frames = (places[1], band, *weights)
        (slope, of_filters), of_images = jax.lax.scan(of_frame, (slope, of_filters), frames)
        return (work, slope, of_filters, of_shares, of_turns), of_images

    shape = jax.ShapeDtypeStruct((2 * n_pairs, n_pixels), kept.dtype)
    of_shares = jnp.zeros((n_pairs, *shares.shape), shares.dtype)
    zeros = jax.tree.map(jnp.zeros_like, (turned, jnp.swapaxes(turns, 1, 2)))
    carry = (
        _empty(shape, n_frames, turns),
        jnp.zeros(shape.shape, shape.dtype),
        zeros[0],
        of_shares,
        zeros[1],
    )
    indices = jnp.arange(len(slopes[0]))
    (_, _, *found), of_bands = jax.lax.scan(of_band, carry, (indices, bands, *slopes))
    return turn_filters(found[0]), of_bands, found[1].sum(0), jnp.swapaxes(found[2], 1, 2)


def _by_frame(turns: Float[Array, "M I K"], n_frames: int) -> Float[Array, "T 2 I M"]:
    """Returns the weights that the even and the odd pose of each frame have; none without poses."""
    if not turns.size:
        return jnp.zeros((n_frames, 2, 0, len(turns)), turns.dtype)
    return jnp.transpose(turns.reshape(*turns.shape[:2], 2, n_frames), (3, 2, 1, 0))


sum_over_time.defvjp(_keep, _slopes)
