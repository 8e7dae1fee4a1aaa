"""The recurrent dynamics of quadrature pairs over the frames of a movie, pooled, with a gradient written by hand.

    e, o = respond(band_t),   A, U = decompose(e, o)
    a_t  = abar + g_t (a_{t-1} - abar) + k_t (A_t - abar)
    z_t  = h_t R_t z_{t-1} + (1 - h_t) U_t,     u_t = z_t / |z_t|

from z_{-1} = U_0 and a_{-1} = abar or A_0. Pooled are a_t, and of the last frames E_t = energy(u_t, u_{t-2}) and
a_t u_t; or weighted sums over time of a_t. All is done for one frame of one band of pixels after the other, so that no
other map has to be in the cache. Nothing is kept for the gradient (`pair_slopes`), which computes a band once more.
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
    N_KEPT,
    PairForm,
    Section,
    advance,
    halves,
    maps_of,
    pool,
    put,
    rows,
    starting,
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
    shares: Float[Array, "k T"],
) -> tuple[dict[str, Float[Array, "_ M N"]], Float[Array, "k M N"]]:
    """Returns the pooled maps of b bands of p pixels: of T frames the amplitude, of the last n the others.

    Nothing came before the first frame.

    Args:
      respond: (filters, one frame of a band) -> e of all pairs, then o.
      bands: arrays [b, T, ..].
      rest: abar.
      motion: decay g, decay of the pose h, drive gain k [T, 1, 1], and cosine and sine [T, M, 1] of what R_t turns by.
      windows: pooling windows of N units.
      shares: weights of k sums over time of the amplitude.

    Returns:
      The maps of `form.pooled`, and the sums over time.
    """
    n_pairs, n_frames, (_, n_units, n_pixels) = len(rest), len(motion[0]), windows.shape
    sections, sums = form.sections(n_frames), len(shares) > 0

    def empty(*shape: int) -> Array:
        return jnp.zeros(shape, windows.dtype)

    def step(section: Section, window: Array, carry: tuple, frame: tuple) -> tuple:
        state, work, total = carry
        work, (t, band, moves) = dict(work), frame
        work["kept"] = advance(form, rest, respond(filters, band), moves, state, work["kept"])
        a, unit = rows(work["kept"], 0, n_pairs), halves(work["kept"][3 * n_pairs :])
        before = jax.lax.dynamic_index_in_dim(work["units"], t % FRAMES_BEFORE, keepdims=False)
        work["maps"] = put(work["maps"], maps_of(section.names, a, unit, halves(before)))
        if section.needs_unit and form.looks_back:
            work["units"] = jax.lax.dynamic_update_index_in_dim(
                work["units"], work["kept"][3 * n_pairs :], t % FRAMES_BEFORE, 0
            )
        if sums:
            work["amplitudes"] = jax.lax.dynamic_update_index_in_dim(work["amplitudes"], a, t, 0)
        if section.names:
            pooled = pool(work["maps"][: total.shape[1]], window)
            total = total.at[t - section.start].add(pooled)
        return (work["kept"][: len(state)], work, total), None

    def add_band(carry: tuple, given: tuple) -> tuple:
        work, totals, averages = carry
        band, window = given
        state, found = starting(form, respond, filters, band, rest), []
        for section, total in zip(sections, totals, strict=True):
            frames = (jnp.arange(n_frames), band, motion)
            part = jax.tree.map(lambda x, section=section: x[section.start : section.end], frames)
            advance_section = functools.partial(step, section, window)
            (state, work, total), _ = jax.lax.scan(advance_section, (state, work, total), part)
            found.append(total)
        if sums:
            summed = jnp.dot(shares, work["amplitudes"].reshape(n_frames, -1), precision="highest")
            averages = averages + pool(summed.reshape(-1, n_pixels), window)
        return (work, found, averages), None

    work = {
        "kept": empty(N_KEPT * n_pairs, n_pixels),
        "units": empty(FRAMES_BEFORE, 2 * n_pairs, n_pixels),
        "maps": empty(len(form.pooled) * n_pairs, n_pixels),
        "amplitudes": empty(n_frames if sums else 0, n_pairs, n_pixels),
    }
    totals = [empty(x.end - x.start, len(x.names) * n_pairs, n_units) for x in sections]
    carry = (work, totals, empty(len(shares) * n_pairs, n_units))
    _, totals, averages = jax.lax.scan(add_band, carry, (bands, windows))[0]
    maps = {name: [] for name in form.pooled}
    for section, total in zip(sections, totals, strict=True):
        for index, name in enumerate(section.names):
            maps[name].append(total[:, index * n_pairs : (index + 1) * n_pairs])
    return {name: jnp.concatenate(x) for name, x in maps.items()}, averages.reshape(-1, n_pairs, n_units)


def _keep_given(form: PairForm, respond: Callable, *given: Any) -> tuple:
    return pool_pairs(form, respond, *given), given


pool_pairs.defvjp(_keep_given, slopes_of_pooled)
