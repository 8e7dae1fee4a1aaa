"""The recurrent dynamics of quadrature pairs over the frames of a movie, pooled, with a gradient written by hand.

    e, o = respond(band_t),   A, U = decompose(e, o)
    a_t  = abar + g_t (a_{t-1} - abar) + k_t (A_t - abar)
    z_t  = h_t R_t z_{t-1} + (1 - h_t) U_t,     u_t = z_t / |z_t|

from z_{-1} = U_0 and a_{-1} = abar or A_0. Pooled are a_t, and of the last frames E_t = energy(u_t, u_{t-2}) and
a_t u_t. All is done for one frame of one band of pixels after the other, so that no other map has to be in the cache.
Kept for the gradient (`pair_slopes`) is what came before some frames, from which it computes all once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.pair_frames import (
    FRAMES_BEFORE,
    N_RING,
    N_SAVED,
    PairForm,
    Section,
    advance,
    halves,
    maps_of,
    put,
    rows,
    starting,
    take,
)
from polarjax.ops.pair_slopes import slopes_of_pooled
from polarjax.ops.products import pool_rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pool_pairs(
    form: PairForm,
    respond: Callable[[Any, Any], Float[Array, "R p"]],
    filters: Any,
    bands: Any,
    rest: Float[Array, " M"],
    motion: tuple,
    windows: Float[Array, "b N p"],
) -> dict[str, Float[Array, "_ M N"]]:
    """Returns the pooled maps of b bands of p pixels: of T frames the amplitude, of the last n the others.

    Nothing came before the first frame.

    Args:
      respond: (filters, one frame of a band) -> e of all pairs, then o.
      bands: arrays [b, T, ..].
      rest: abar.
      motion: decay g, decay of the pose h, drive gain k [T, 1, 1], and cosine and sine [T, M, 1] of what R_t turns by.
      windows: pooling windows of N units.
    """
    return _pool_bands(form, respond, filters, bands, rest, motion, windows, keeps=False)[0]


def _pool_bands(
    form: PairForm,
    respond: Callable,
    filters: Any,
    bands: Any,
    rest: Float[Array, " M"],
    motion: tuple,
    windows: Float[Array, "b N p"],
    *,
    keeps: bool,
) -> tuple[dict[str, Float[Array, "_ M N"]], Float[Array, "_ p"]]:
    """Returns the pooled maps and, where it is kept, what came before every chunk of every band."""
    n_pairs, n_frames, (n_bands, n_units, n_pixels) = len(rest), len(motion[0]), windows.shape
    sections = form.sections(n_frames)
    n_chunks = sum(section.n_chunks for section in sections)

    def empty(n_maps: int) -> Float[Array, "_ p"]:
        return jnp.zeros((n_maps * n_pairs, n_pixels), windows.dtype)

    def step(section: Section, window: Array, carry: tuple, frame: tuple) -> tuple:
        state, work, total = carry
        work, (t, band, moves) = dict(work), frame
        now, unit = advance(form, rest, respond(filters, band), moves, state, work["state"])
        before = unit
        if section.needs_unit:
            # a ring, of which u_t is written before u_{t-2} is read: XLA copies neither
            work["units"] = put(work["units"], unit, 2 * (t % N_RING))
            unit, before = (
                halves(take(work["units"], 2 * ((t + i) % N_RING), 2, n_pairs))
                for i in (0, N_RING - FRAMES_BEFORE)
            )
        work["maps"] = put(work["maps"], maps_of(section.names, rows(now, 0, n_pairs), unit, before))
        work["state"] = now
        if section.names:
            pooled = pool_rows(work["maps"][: total.shape[1]], window)
            total = total.at[t - section.start].add(pooled)
        return (now, work, total), None

    def add_chunk(section: Section, given: tuple, carry: tuple, chunk: tuple) -> tuple:
        (state, work, total), saved = carry
        (index, window), (number, frames) = given, chunk
        if keeps:
            place = N_SAVED * n_pairs * (index * n_chunks + number)
            # u of two frames ago, then a, z and u of the last
            older, newer = (
                take(work["units"], 2 * ((frames[0][0] + i) % N_RING), 2, n_pairs)
                for i in (N_RING - FRAMES_BEFORE, N_RING - 1)
            )
            for x in (older, state, newer):
                saved = jax.lax.dynamic_update_slice(saved, x, (place, 0))
                place = place + len(x)
        advance_frame = functools.partial(step, section, window)
        return (jax.lax.scan(advance_frame, (state, work, total), frames)[0], saved), None

    def add_band(carry: tuple, given: tuple) -> tuple:
        work, totals, saved = carry
        index, band, window = given
        state, found = starting(form, respond, filters, band, rest), []
        for section, total in zip(sections, totals, strict=True):
            frames = jax.tree.map(section.chunks, (jnp.arange(n_frames), band, motion))
            numbers = section.first_chunk + jnp.arange(section.n_chunks)
            pool_chunk = functools.partial(add_chunk, section, (index, window))
            carry = ((state, work, total), saved)
            ((state, work, total), saved), _ = jax.lax.scan(pool_chunk, carry, (numbers, frames))
            found.append(total)
        return (work, found, saved), None

    work = {"state": empty(3), "units": empty(2 * N_RING), "maps": empty(len(form.pooled))}
    totals = [jnp.zeros((x.n_frames, len(x.names) * n_pairs, n_units), windows.dtype) for x in sections]
    saved = empty(N_SAVED * n_bands * n_chunks if keeps else 0)
    given = (jnp.arange(n_bands), bands, windows)
    _, totals, saved = jax.lax.scan(add_band, (work, totals, saved), given)[0]
    maps = {name: [] for name in form.pooled}
    for section, total in zip(sections, totals, strict=True):
        for index, name in enumerate(section.names):
            maps[name].append(total[:, index * n_pairs : (index + 1) * n_pairs])
    return {name: jnp.concatenate(x) for name, x in maps.items()}, saved


def _keep(form: PairForm, respond: Callable, *given: Any) -> tuple:
    maps, saved = _pool_bands(form, respond, *given, keeps=True)
    return maps, (*given, saved)


pool_pairs.defvjp(_keep, slopes_of_pooled)
