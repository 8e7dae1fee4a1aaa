"""The recurrent dynamics of quadrature pairs over the frames of a movie, pooled, with a gradient written by hand.

    e, o = respond(band_t),   A, U = decompose(e, o)
    a_t  = abar + g_t (a_{t-1} - abar) + k_t (A_t - abar)
    z_t  = h_t R_t z_{t-1} + (1 - h_t) U_t,     u_t = z_t / |z_t|

from z_{-1} = U_0 and a_{-1} = abar or A_0. Pooled are a_t, and of the last frames E_t = energy(u_t, u_{t-2}) and
a_t u_t. All is done for one frame of one band of pixels after the other, so that no other map has to be in the cache.
Nothing is kept for the gradient (`pair_slopes`), which computes a band once more.
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
    PairForm,
    Section,
    advance,
    halves,
    maps_of,
    pool,
    put,
    rows,
    starting,
    take,
)
from polarjax.ops.pair_slopes import slopes_of_pooled


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
    n_pairs, n_frames, (_, n_units, n_pixels) = len(rest), len(motion[0]), windows.shape
    sections = form.sections(n_frames)

    def empty(*shape: int) -> Array:
        return jnp.zeros(shape, windows.dtype)

    def step(section: Section, window: Array, carry: tuple, frame: tuple) -> tuple:
        state, work, total = carry
        work, (t, band, moves) = dict(work), frame
        now, unit = advance(form, rest, respond(filters, band), moves, state, work["state"])
        before = None
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
            pooled = pool(work["maps"][: total.shape[1]], window)
            total = total.at[t - section.start].add(pooled)
        return (now, work, total), None

    def add_band(carry: tuple, given: tuple) -> tuple:
        work, totals = carry
        band, window = given
        state, found = starting(form, respond, filters, band, rest), []
        for section, total in zip(sections, totals, strict=True):
            frames = (jnp.arange(n_frames), band, motion)
            part = jax.tree.map(lambda x, section=section: x[section.start : section.end], frames)
            advance_section = functools.partial(step, section, window)
            (state, work, total), _ = jax.lax.scan(advance_section, (state, work, total), part)
            found.append(total)
        return (work, found), None

    work = {
        "state": empty(3 * n_pairs, n_pixels),
        "units": empty(2 * N_RING * n_pairs, n_pixels),
        "maps": empty(len(form.pooled) * n_pairs, n_pixels),
    }
    totals = [empty(x.end - x.start, len(x.names) * n_pairs, n_units) for x in sections]
    _, totals = jax.lax.scan(add_band, (work, totals), (bands, windows))[0]
    maps = {name: [] for name in form.pooled}
    for section, total in zip(sections, totals, strict=True):
        for index, name in enumerate(section.names):
            maps[name].append(total[:, index * n_pairs : (index + 1) * n_pairs])
    return {name: jnp.concatenate(x) for name, x in maps.items()}


def _keep_given(form: PairForm, respond: Callable, *given: Any) -> tuple:
    return pool_pairs(form, respond, *given), given


pool_pairs.defvjp(_keep_given, slopes_of_pooled)
