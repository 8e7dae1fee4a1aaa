"""The recurrent dynamics of quadrature pairs over the frames of a movie, with a gradient that goes back frame by frame.

    A, U = decompose(e, o)
    a_t  = abar + g_t (a_{t-1} - abar) + k_t (A_t - abar)
    z_t  = h_t R_t z_{t-1} + (1 - h_t) U_t,     u_t = z_t / |z_t|

from z_{-1} = U_0 and a_{-1} = abar or A_0. Shown of the last frames are the maps E_t = energy(u_t, u_{t-2}) and
a_t u_t. Back in time, with n_t and m_t the slopes of a_t and z_t:

    n_t  = da_t + g_{t+1} n_{t+1}               dA_t = k_t n_t
    m_t  = dz_t + h_{t+1} R_{t+1}' m_{t+1}      dU_t = (1 - h_t) m_t

with da_t and dz_t from the maps of frame t and, through the energy, of frame t + 2. The slopes of g_t, h_t, k_t, R_t
and abar are sums over pixels, made as matrix products.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops import dynamics
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR, decompose, safe_normalize
from polarjax.ops.summaries import ENERGY_FLOOR, pose_energy

SHOWN = ("energy", "even", "odd")
FRAMES_BEFORE = 2
# Computed two by two, a frame does not stand in the place of the one before: XLA has no vectors for such a loop.
TWO_BY_TWO = 2


@dataclasses.dataclass(frozen=True)
class PairForm:
    """What is computed.

    Attributes:
      pose_floor: of `decompose`.
      start: 'rest' or 'drive', where a_{-1} is.
      shown: which of `SHOWN`.
      n_shown: of the last n frames, at most T - 2: the energy looks two frames back.
    """

    pose_floor: float
    start: str
    shown: tuple[str, ...]
    n_shown: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def evolve_pairs(
    form: PairForm,
    responses: Float[Array, "T R p"],
    rest: Float[Array, " M"],
    motion: tuple,
) -> tuple[Float[Array, "T M p"], dict[str, Float[Array, "n M p"]]]:
    """Returns the amplitude memory of p pixels that nothing came before, and the maps that are shown.

    Args:
      responses: e of all pairs, then o.
      rest: abar.
      motion: decay g, decay of the pose h, drive gain k [T, 1, 1], and cosine and sine [T, M, 1] of what R_t turns by.
    """
    amplitude, pose = _evolve(form, responses, rest, motion)
    return amplitude, _show(form, amplitude, pose)


def _evolve(form: PairForm, responses: Array, rest: Array, motion: tuple) -> tuple:
    """Returns a and z."""
    first, *pose = decompose(*halves(responses[0]), pose_floor=form.pose_floor)
    whole = jnp.broadcast_to(rest[:, None], first.shape)

    def step(state: tuple, frame: tuple) -> tuple:
        t, (decay, pose_decay, gain, (cosine, sine)) = frame
        amplitude, *seen = decompose(*halves(_at(responses, t)), pose_floor=form.pose_floor)
        turn = (jnp.broadcast_to(cosine, amplitude.shape), jnp.broadcast_to(sine, amplitude.shape))
        a = dynamics.drive_amplitude(state[0], amplitude, whole, decay, gain)
        state = (a, dynamics.drive_pose(state[1], (seen[0], seen[1]), turn, pose_decay))
        return state, state

    before = (first if form.start == "drive" else whole, (pose[0], pose[1]))
    frames = (jnp.arange(len(responses)), motion)
    return jax.lax.scan(step, before, frames, unroll=TWO_BY_TWO)[1]


def _show(form: PairForm, amplitude: Array, pose: tuple) -> dict[str, Array]:
    n_frames, first = len(amplitude), len(amplitude) - form.n_shown
    unit = safe_normalize(*(x[first:] for x in pose))
    before = safe_normalize(*(x[first - FRAMES_BEFORE : n_frames - FRAMES_BEFORE] for x in pose))
    make = {
        "energy": lambda: pose_energy(unit, before),
        "even": lambda: amplitude[first:] * unit[0],
        "odd": lambda: amplitude[first:] * unit[1],
    }
    return {name: make[name]() for name in form.shown}


def _keep(form: PairForm, responses: Array, rest: Array, motion: tuple) -> tuple:
    amplitude, pose = _evolve(form, responses, rest, motion)
    return (amplitude, _show(form, amplitude, pose)), (responses, rest, motion, amplitude, pose)


def _slopes(form: PairForm, given: tuple, slopes: tuple) -> tuple:
    responses, rest, motion, a, z = given
    of_a, of_shown = slopes
    n_frames, n_pairs, n_pixels = a.shape
    one = jnp.ones((n_pixels, 1), a.dtype)
    whole = jnp.broadcast_to(rest[:, None], a.shape[1:])
    first = n_frames - form.n_shown

    def step(shown: bool, carry: tuple, frame: tuple) -> tuple:
        t, (decay, pose_decay, gain, (cosine, sine)), *from_shown = frame
        (from_next_a, from_next_z), of_responses = carry
        even, odd = halves(_at(responses, t))
        amplitude, *seen = decompose(even, odd, pose_floor=form.pose_floor)
        a_before = _before(a, amplitude if form.start == "drive" else whole, t)
        z_before = [_before(x, start, t) for x, start in zip(z, seen, strict=True)]
        n, m = from_next_a + _at(of_a, t), from_next_z
        if shown:
            from_a, of_unit = from_shown
            from_z = _across([_at(x, t) for x in z], of_unit, AMPLITUDE_FLOOR)
            n, m = n + from_a, (m[0] + from_z[0], m[1] + from_z[1])
        products = (
            m[0] * z_before[0] + m[1] * z_before[1],
            m[1] * z_before[0] - m[0] * z_before[1],
            n * amplitude,
            n * a_before,
            m[0] * seen[0] + m[1] * seen[1],
        )
        fade = 1 - pose_decay
        found = _slope_of_pair((even, odd), gain * n, (fade * m[0], fade * m[1]), form.pose_floor)
        turn = [jnp.broadcast_to(part, even.shape) for part in (cosine, -sine)]
        back = dynamics.rotate(*m, *turn)
        onward = (decay * n, (pose_decay * back[0], pose_decay * back[1]))
        for part, start in zip(found, (0, n_pairs), strict=True):
            of_responses = jax.lax.dynamic_update_slice(of_responses, part[None], (t, start, 0))
        along, across, observed, held, corrected, every = (
            jnp.dot(x, one, precision="highest")[:, 0] for x in (*products, n)
        )
        decay, pose_decay, gain = decay[0, 0], pose_decay[0, 0], gain[0, 0]
        of_decay, of_gain = ((x - rest * every).sum() for x in (held, observed))
        of_pose_decay = (cosine[:, 0] * along + sine[:, 0] * across - corrected).sum()
        of_turn = (pose_decay * along, pose_decay * across)
        sums = (of_decay, of_pose_decay, of_gain, *of_turn, (1 - decay - gain) * every)
        return (onward, of_responses), sums

    frames = (jnp.arange(n_frames), motion)
    nothing = jnp.zeros_like(a[0])
    carry, sums = ((nothing, (nothing, nothing)), jnp.zeros_like(responses)), []
    shown_from = first - FRAMES_BEFORE
    from_shown = _slopes_of_shown(form, a, z, of_shown) if form.shown else ()
    parts = ((0, shown_from), (shown_from, n_frames, *from_shown)) if form.shown else ((0, n_frames),)
    for start, end, *given_too in reversed(parts):
        part = jax.tree.map(lambda x, start=start, end=end: x[start:end], frames)
        advance = functools.partial(step, bool(given_too))
        carry, back = jax.lax.scan(advance, carry, (*part, *given_too), reverse=True)
        sums.insert(0, back)
    (from_a, from_z), of_responses = carry
    of_decay, of_pose_decay, of_gain, of_cosine, of_sine, of_rest = jax.tree.map(
        lambda *x: jnp.concatenate(x), *sums
    )
    of_first_a = from_a if form.start == "drive" else nothing
    of_first = _slope_of_pair(halves(responses[0]), of_first_a, from_z, form.pose_floor)
    of_rest = of_rest.sum(0)
    if form.start == "rest":
        of_rest = of_rest + jnp.dot(from_a, one, precision="highest")[:, 0]
    of_turn = tuple(
        (x if given.shape[1] == n_pairs else x.sum(1, keepdims=True))[..., None]
        for x, given in zip((of_cosine, of_sine), motion[3], strict=True)
    )
    of_motion = (*(x[:, None, None] for x in (of_decay, of_pose_decay, of_gain)), of_turn)
    return of_responses.at[0].add(jnp.concatenate(of_first)), of_rest, of_motion


def halves(responses: Float[Array, "*T R p"]) -> tuple[Float[Array, "*T M p"], Float[Array, "*T M p"]]:
    """Returns the even and the odd responses."""
    n_pairs = responses.shape[-2] // 2
    return responses[..., :n_pairs, :], responses[..., n_pairs:, :]


def _at(x: Array, t: Array | int) -> Array:
    return jax.lax.dynamic_index_in_dim(x, t, keepdims=False)


def _before(x: Array, start: Array, t: Array) -> Array:
    return jnp.where(t == 0, start, _at(x, jnp.maximum(t - 1, 0)))


def _slopes_of_shown(form: PairForm, a: Array, z: tuple, of_shown: dict) -> tuple:
    """Returns the slopes of a_t and, over |z_t|, of u_t from the maps shown, of the last n + 2 frames.

    In a loop of its own, which does not read what it makes: where XLA puts the slope of u_t in the place of a number
    that it is made of, the loop over pixels is not computed in vectors. What several loops read is a quotient, which
    XLA computes once; a product it would compute again in each of them.
    """
    nothing = jnp.zeros_like(a[0])
    both = (nothing, nothing)
    first = len(a) - form.n_shown
    looks_back = "energy" in form.shown

    def unit_at(t: Array | int) -> tuple:
        return safe_normalize(_at(z[0], t), _at(z[1], t))

    def step(scored: bool, carry: tuple, t: Array) -> tuple:
        later, units = carry
        pose = [_at(x, t) for x in z]
        unit, of_a, of_unit, earlier = units[0], nothing, list(later[0]), both
        before = unit_at(t - FRAMES_BEFORE) if scored and looks_back else units[1]
        if scored and looks_back:
            newer, earlier = _slopes_of_energy(unit, before, _at(of_shown["energy"], t - first))
            of_unit = [x + y for x, y in zip(of_unit, newer, strict=True)]
        for i, name in enumerate(("even", "odd")):
            if scored and name in form.shown:
                of_map = _at(of_shown[name], t - first)
                of_a = of_a + of_map * unit[i]
                of_unit[i] = of_unit[i] + of_map * _at(a, t)
        length = jnp.sqrt(jnp.maximum(pose[0] * pose[0] + pose[1] * pose[1], AMPLITUDE_FLOOR**2))
        if not looks_back:
            before, earlier = unit_at(jnp.maximum(t - FRAMES_BEFORE, 0)), both
        return ((later[1], earlier), (units[1], before)), (of_a, (of_unit[0] / length, of_unit[1] / length))

    # slopes of u_t and u_{t-1} from the energies of frames t + 2 and t + 1, and both poses
    carry, found = ((both, both), (unit_at(len(a) - 1), unit_at(len(a) - 2))), []
    for start, end, scored in ((first, len(a), True), (first - FRAMES_BEFORE, first, False)):
        times = jnp.arange(start, end)
        carry, part = jax.lax.scan(functools.partial(step, scored), carry, times, reverse=True)
        found.insert(0, part)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *found)


def _slopes_of_energy(pose: tuple, earlier: tuple, slope: Array) -> tuple[list[Array], tuple[Array, Array]]:
    """Returns the slopes of the pose and of the earlier one from that of `pose_energy`."""
    changes = [(now - before) / 2 for now, before in zip(pose, earlier, strict=True)]
    powers = [x * x + change * change for x, change in zip(pose, changes, strict=True)]
    total = sum(jnp.maximum(power, ENERGY_FLOOR) for power in powers)
    scaled = jnp.where(total > ENERGY_FLOOR, slope, 0) * jax.lax.rsqrt(jnp.maximum(total, ENERGY_FLOOR))
    scaled = [jnp.where(power > ENERGY_FLOOR, scaled, 0) for power in powers]
    of_change = [x * change / 2 for x, change in zip(scaled, changes, strict=True)]
    of_pose = [x * now + change for x, now, change in zip(scaled, pose, of_change, strict=True)]
    return of_pose, (-of_change[0], -of_change[1])


def _across(x: Sequence, slopes: Sequence, floor: float) -> tuple[Array, Array]:
    """Returns slopes less their part along x = (e, o), unless |x| is below the floor: those of x over |x| are left."""
    power = x[0] * x[0] + x[1] * x[1]
    inverse = jax.lax.rsqrt(jnp.maximum(power, floor**2))
    unit = (x[0] * inverse, x[1] * inverse)
    along = jnp.where(power > floor**2, unit[0] * slopes[0] + unit[1] * slopes[1], 0)
    return slopes[0] - unit[0] * along, slopes[1] - unit[1] * along


def _slope_of_pair(
    x: Sequence, of_amplitude: Array, of_pose: Sequence, pose_floor: float
) -> tuple[Array, Array]:
    """Returns the slopes of e and o from those of what `decompose` makes of them."""
    even, odd = _across(x, of_pose, pose_floor)
    power = x[0] * x[0] + x[1] * x[1]
    inverse = jax.lax.rsqrt(jnp.maximum(power, pose_floor**2))
    of_root = jax.lax.rsqrt(jnp.maximum(power, AMPLITUDE_FLOOR**2))
    radial = jnp.where(power > AMPLITUDE_FLOOR**2, of_amplitude * of_root, 0)
    return inverse * even + radial * x[0], inverse * odd + radial * x[1]


evolve_pairs.defvjp(_keep, _slopes)
