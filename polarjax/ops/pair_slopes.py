"""The gradient of `pair_dynamics.pool_pairs`, back in time frame by frame.

With n_t and m_t the slopes of a_t and z_t:

    n_t  = da_t + g_{t+1} n_{t+1}               dA_t = k_t n_t
    m_t  = dz_t + h_{t+1} R_{t+1}' m_{t+1}      dU_t = (1 - h_t) m_t

with da_t and dz_t from the maps of frame t and, through the energy, of frame t + 2. With q_t = dE_t / 2 E_t and
v_t = (u_t - u_{t-2}) / 2, in each of two components that is above its floor:

    du_t = q_t (2 u_t + v_t),                   du_{t-2} = -q_t v_t

The slopes of g_t, h_t, k_t, R_t and abar are sums over pixels and pairs.

A chunk of frames of a band is computed once more, from what came before it, and then taken back frame by frame.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops import dynamics
from polarjax.ops.pair_frames import (
    FRAMES_BEFORE,
    N_KEPT,
    N_RING,
    N_SAVED,
    PairForm,
    Section,
    advance,
    halves,
    inverse_length,
    maps_of,
    pull_back,
    put,
    rows,
    take,
    turn_filters,
)
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR, observe, slopes_of_pair
from polarjax.ops.products import over_rows
from polarjax.ops.summaries import ENERGY_FLOOR


def slopes_of_pooled(form: PairForm, respond: Callable, given: tuple, slopes: dict[str, Array]) -> tuple:
    """Returns the slopes of the arguments of `pool_pairs` from those of its results."""
    filters, bands, rest, motion, windows, saved = given
    n_frames, n_pairs, (n_bands, _, n_pixels) = len(motion[0]), len(rest), windows.shape
    sections, of_maps = form.sections(n_frames), []
    n_chunks = sum(section.n_chunks for section in sections)
    for section in sections:
        # of maps of the last frames alone, frame t stands n_frames - t before the end
        parts = [slopes[name] for name in section.names]
        parts = [x[len(x) - n_frames + section.start :][: section.n_frames] for x in parts]
        of_maps.append(jnp.concatenate(parts, axis=1) if parts else None)

    def empty(n_maps: int) -> Float[Array, "_ p"]:
        return jnp.zeros((n_maps * n_pairs, n_pixels), windows.dtype)

    # `states` has two frames before those of a chunk: of the older u alone
    def keep(carry: tuple, frame: tuple) -> tuple:
        (responses, states), work = carry
        i, band, moves = frame
        response, place = respond(filters, band), N_KEPT * (i + FRAMES_BEFORE)
        before = take(states, place - N_KEPT, 3, n_pairs)
        now, unit = advance(form, rest, response, moves, before, work["state"])
        states = jax.lax.dynamic_update_slice(states, now, (place * n_pairs, 0))
        states = put(states, unit, place + 3)
        if form.keeps_responses:
            responses = put(responses, [response], i)
        return ((responses, states), {**work, "state": now}), None

    def of_chunk(section: Section, given: tuple, carry: tuple, chunk: tuple) -> tuple:
        carry, work, (responses, states) = carry
        (index, window, of_pooled), (number, frames) = given, chunk
        place = N_SAVED * (index * n_chunks + number)
        block = take(saved, place, N_SAVED, n_pairs)
        states = jax.lax.dynamic_update_slice(states, block, (3 * n_pairs, 0))
        t, *frames = frames
        (kept, work), _ = jax.lax.scan(keep, ((responses, states), work), (t - t[0], *frames))
        step = functools.partial(_step_back, form, respond, (filters, rest, window), kept, section)
        step_of = functools.partial(step, of_pooled)
        given = ((t, t - t[0]), *frames)
        (carry, work), results = jax.lax.scan(step_of, (carry, work), given, reverse=True)
        return (carry, work, kept), results

    def of_band(carry: tuple, given: tuple) -> tuple:
        kept, work, of_filters, of_rest, of_motion = carry
        index, band, window = given
        carry = (empty(3), empty(2 * N_RING), of_filters, of_rest, jnp.zeros_like(window))
        carry, found = (carry, work, kept), []
        for section, of_section in reversed(list(zip(sections, of_maps, strict=True))):
            frames = jax.tree.map(section.chunks, (jnp.arange(n_frames), band, motion))
            numbers = section.first_chunk + jnp.arange(section.n_chunks)
            back_chunk = functools.partial(of_chunk, section, (index, window, of_section))
            carry, results = jax.lax.scan(back_chunk, carry, (numbers, frames), reverse=True)
            found.insert(0, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results))
        of_frames, of_moves = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
        (back, _, of_filters, of_rest, of_window), work, kept = carry

        # what came before the first frame is its own pose, and rest or its own amplitude
        of_state = [rows(back, index, n_pairs) for index in range(3)]
        of_amplitude = of_state[0] if form.start == "drive" else jnp.zeros_like(of_state[0])
        first = jax.tree.map(lambda x: x[0], band)
        seen = observe(*halves(respond(filters, first)), pose_floor=form.pose_floor)
        of_first = slopes_of_pair(seen, of_amplitude, of_state[1:], pose_floor=form.pose_floor)
        more = pull_back(respond, turn_filters(filters), first, jnp.concatenate(of_first))
        of_filters = jax.tree.map(jnp.add, of_filters, more[0])
        of_frames = jax.tree.map(lambda x, y: x.at[0].add(y), of_frames, more[1])
        if form.start == "rest":
            one = jnp.ones((n_pixels, 1), windows.dtype)
            of_rest = of_rest + jnp.dot(of_state[0], one, precision="highest")[:, 0]
        # added up here: after the loop the order of a sum would depend on what XLA fuses it with
        of_motion = jax.tree.map(jnp.add, of_motion, of_moves)
        return (kept, work, of_filters, of_rest, of_motion), (of_frames, of_window)

    longest = max(section.size for section in sections)
    kept = (empty(2 * longest if form.keeps_responses else 0), empty(N_KEPT * (longest + FRAMES_BEFORE)))
    work = {"state": empty(3), "maps": empty(len(form.pooled)), "units": empty(2), "slopes": empty(3)}
    work |= {"turns": empty(2), "responses": empty(2)}
    sums = jax.tree.map(jnp.zeros_like, (turn_filters(filters), rest, motion))
    given = (jnp.arange(n_bands), bands, windows)
    carry, (of_bands, of_windows) = jax.lax.scan(of_band, (kept, work, *sums), given)
    _, _, of_filters, of_rest, of_motion = carry
    return turn_filters(of_filters), of_bands, of_rest, of_motion, of_windows


def _step_back(
    form: PairForm,
    respond: Callable,
    given: tuple,
    kept: tuple,
    section: Section,
    of_maps: Float[Array, "_ R N"] | None,
    carry: tuple,
    frame: tuple,
) -> tuple:
    """Takes the gradient one frame back.

    Args:
      of_maps: slopes of the pooled maps of the section.
      kept: responses, and a, z and u, of the frames of a chunk; before these, a and z of one and u of two frames.
      carry: slopes of a_t and z_t from later frames, those of u that later energies hand back, slopes of turned
        filters, abar and window, work arrays.
      frame: t and its place i in the chunk, its band, what moves it.
    """
    filters, rest, window = given
    (back, handed, of_filters, of_rest, of_window), work = carry
    (t, i), band, (decay, pose_decay, gain, turn) = frame
    work, n_pairs = dict(work), len(rest)

    def kept_at(i: Array, index: int) -> Array:
        return take(kept[1], N_KEPT * (i + FRAMES_BEFORE) + index, 1, n_pairs)

    def unit_at(i: Array) -> tuple[Array, Array]:
        return kept_at(i, 3), kept_at(i, 4)

    n, *m = (rows(back, index, n_pairs) for index in range(3))
    a, unit, before = kept_at(i, 0), unit_at(i), unit_at(i - FRAMES_BEFORE)
    found = {}
    if of_maps is not None:
        of_pooled = jax.lax.dynamic_index_in_dim(of_maps, t - section.start, keepdims=False)
        stacked = jnp.dot(of_pooled, window, precision="highest")
        found = {name: rows(stacked, index, n_pairs) for index, name in enumerate(section.names)}
        work["maps"] = put(work["maps"], maps_of(section.names, a, unit, before))
        maps = work["maps"][: len(stacked)]
        of_window = of_window + over_rows(of_pooled, maps)
        n = n + found.get("last", 0.0)
    if section.needs_unit:
        of_unit: list[Any] = [0.0, 0.0]
        if form.looks_back:
            across = [jnp.zeros_like(n)] * 2
            if "energy" in found:
                energy = rows(work["maps"], section.names.index("energy"), n_pairs)
                slopes = _slopes_of_energy(found["energy"] * 0.5 / energy, unit, before)
                across = [x for _, x in slopes]
                of_unit = [2 * along + x for along, x in slopes]
            handed = put(handed, across, 2 * (t % N_RING))
            older = halves(take(handed, 2 * ((t + FRAMES_BEFORE) % N_RING), 2, n_pairs))
            of_unit = [x - y for x, y in zip(of_unit, older, strict=True)]
        for index, name in enumerate(("even", "odd")):
            if name in found:
                n = n + found[name] * unit[index]
                of_unit[index] = of_unit[index] + found[name] * a
        z = (kept_at(i, 1), kept_at(i, 2))
        inverse = inverse_length(z)
        work["units"] = put(work["units"], [x * inverse for x in of_unit])
        of_even, of_odd = (rows(work["units"], index, n_pairs) for index in range(2))
        along = jnp.where(
            z[0] * z[0] + z[1] * z[1] > AMPLITUDE_FLOOR**2, unit[0] * of_even + unit[1] * of_odd, 0
        )
        m = [m[0] + of_even - unit[0] * along, m[1] + of_odd - unit[1] * along]
    work["slopes"] = put(work["slopes"], (n, *m))
    n, *m = (rows(work["slopes"], index, n_pairs) for index in range(3))

    responses = take(kept[0], 2 * i, 2, n_pairs) if form.keeps_responses else respond(filters, band)
    seen = observe(*halves(responses), pose_floor=form.pose_floor)
    _, amplitude, pose, *_ = seen
    a_before, *z_before = (kept_at(i - 1, index) for index in range(3))
    across = (m[0] * z_before[0] + m[1] * z_before[1], m[1] * z_before[0] - m[0] * z_before[1])
    work["turns"] = put(work["turns"], across)
    one = jnp.ones((back.shape[1], 1), back.dtype)
    of_turn, every = (jnp.dot(work[name], one, precision="highest")[:, 0] for name in ("turns", "slopes"))
    # sums over all, first over pairs: those XLA computes in vectors
    rates = (n * a_before, n * amplitude, m[0] * pose[0] + m[1] * pose[1])
    rates = jnp.dot(jnp.stack([x.sum(0) for x in rates]), one, precision="highest")[:, 0]
    moves = _slopes_of_moves(
        (decay, pose_decay, turn), rates, of_turn.reshape(2, n_pairs), rest * every[:n_pairs]
    )
    of_rest = of_rest + (1 - decay - gain)[0, 0] * every[:n_pairs]
    fade = 1 - pose_decay
    of_pair = slopes_of_pair(seen, gain * n, [fade * x for x in m], pose_floor=form.pose_floor)
    work["responses"] = put(work["responses"], of_pair)
    of_filter, of_band = pull_back(respond, turn_filters(filters), band, work["responses"])
    of_filters = jax.tree.map(jnp.add, of_filters, of_filter)
    cosine, sine = (jnp.broadcast_to(x, n.shape) for x in turn)
    turned = dynamics.rotate(m[0], m[1], cosine, -sine)
    back = put(back, (decay * n, *(pose_decay * x for x in turned)))
    return ((back, handed, of_filters, of_rest, of_window), work), (of_band, moves)


def _slopes_of_energy(ratio: Array, unit: Sequence, before: Sequence) -> list[tuple[Array, Array]]:
    """Returns q u and q v of both components, 0 where a component of `pose_energy` is at its floor."""
    found = []
    for now, earlier in zip(unit, before, strict=True):
        change = (now - earlier) / 2
        bounded = jnp.where(now * now + change * change > ENERGY_FLOOR, ratio, 0)
        found.append((bounded * now, bounded * change))
    return found


def _slopes_of_moves(
    moves: tuple, rates: Float[Array, " r"], turns: Float[Array, "s M"], resting: Float[Array, " M"]
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    """Returns the slopes of what moves amplitude and pose of a frame, in the shapes that it has.

    Args:
      moves: decay, decay of the pose, cosine and sine.
      rates: sums of n_t a_{t-1}, n_t A_t and m_t U_t.
      turns: sums over pixels of m_t along and across z_{t-1}.
      resting: sums over pixels of n_t abar.
    """
    decay, pose_decay, turn = moves
    held, observed, corrected = rates
    of_decay, of_gain = held - resting.sum(), observed - resting.sum()
    cosine, sine = (x[:, 0] for x in turn)
    of_pose_decay = (cosine * turns[0] + sine * turns[1]).sum() - corrected
    of_turn = pose_decay * turns
    if len(cosine) == 1:
        of_turn = of_turn.sum(1, keepdims=True)
    shaped = (x.reshape(decay.shape) for x in (of_decay, of_pose_decay, of_gain))
    return (*shaped, (of_turn[0][:, None], of_turn[1][:, None]))
