"""The recurrent dynamics of quadrature pairs over the frames of a movie, with a gradient that goes back frame by frame.

    A, U = decompose(e, o)
    a_t  = abar + g_t (a_{t-1} - abar) + k_t (A_t - abar)
    z_t  = g_t R_t z_{t-1} + (1 - g_t) U_t,     u_t = z_t / |z_t|

from z_{-1} = U_0 and a_{-1} = abar or A_0. Back in time, with n_t and m_t the slopes of a_t and z_t:

    n_t  = da_t + g_{t+1} n_{t+1}               dA_t = k_t n_t
    m_t  = dz_t + g_{t+1} R_{t+1}' m_{t+1}      dU_t = (1 - g_t) m_t

and those of g_t, k_t, R_t and abar are sums over pixels, made as matrix products.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops import dynamics
from polarjax.ops.backend import stage
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR, decompose, safe_normalize


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def evolve_pairs(
    pose_floor: float,
    start: str,
    responses: tuple[Float[Array, "T p M"], Float[Array, "T p M"]],
    rest: Float[Array, " M"],
    motion: tuple,
) -> tuple[Float[Array, "T p M"], Float[Array, "T p M"], Float[Array, "T p M"]]:
    """Returns the amplitude memory and the even and odd unit pose of p pixels that nothing came before.

    Args:
      pose_floor: of `decompose`.
      start: 'rest' or 'drive', where a_{-1} is.
      responses: e and o.
      rest: abar.
      motion: decay g [T, 1, 1], drive gain k [T, 1, 1], and cosine and sine [T, 1, M] of what R_t turns by.
    """
    return _evolve(pose_floor, start, responses, rest, motion)[0]


def _evolve(pose_floor: float, start: str, responses: tuple, rest: Array, motion: tuple) -> tuple:
    """Returns amplitude and unit pose, and z."""
    first, *pose = decompose(*(x[0] for x in responses), pose_floor=pose_floor)
    whole = jnp.broadcast_to(rest, first.shape)

    def step(state: tuple, frame: tuple) -> tuple:
        (even, odd), (decay, gain, (cosine, sine)) = frame
        amplitude, *seen = decompose(even, odd, pose_floor=pose_floor)
        turn = (jnp.broadcast_to(cosine, even.shape), jnp.broadcast_to(sine, even.shape))
        a = dynamics.drive_amplitude(state[0], amplitude, whole, decay, gain)
        z = dynamics.drive_pose(state[1], (seen[0], seen[1]), turn, decay)
        return (a, z), ((a, *safe_normalize(*z)), z)

    before = (first if start == "drive" else whole, (pose[0], pose[1]))
    return jax.lax.scan(step, before, (responses, motion))[1]


def _keep(pose_floor: float, start: str, responses: tuple, rest: Array, motion: tuple) -> tuple:
    found, z = _evolve(pose_floor, start, responses, rest, motion)
    return found, (responses, rest, motion, found[0], z)


def _slopes(pose_floor: float, start: str, given: tuple, slopes: tuple) -> tuple:
    responses, rest, motion, a, z = given
    n_frames, n_pixels, n_pairs = a.shape
    one = jnp.ones((1, n_pixels), a.dtype)
    whole = jnp.broadcast_to(rest, a.shape[1:])

    def before(x: Array, first: Array, t: Array) -> Array:
        earlier = jax.lax.dynamic_index_in_dim(x, jnp.maximum(t - 1, 0), keepdims=False)
        return jnp.where(t == 0, first, earlier)

    def step(carry: tuple, frame: tuple) -> tuple:
        from_a, from_z = carry
        t, (even, odd), (decay, gain, (cosine, sine)), now, (of_a, *of_u) = frame
        amplitude, *seen = decompose(even, odd, pose_floor=pose_floor)
        a_before = before(a, amplitude if start == "drive" else whole, t)
        z_before = [before(x, first, t) for x, first in zip(z, seen, strict=True)]
        turn = [jnp.broadcast_to(x, even.shape) for x in (cosine, sine)]
        of_z = _slope_of_unit(now, tuple(of_u), AMPLITUDE_FLOOR)
        n, m = of_a + from_a, (of_z[0] + from_z[0], of_z[1] + from_z[1])
        turned = dynamics.rotate(*z_before, *turn)
        sums = (
            n * (a_before - whole) + m[0] * (turned[0] - seen[0]) + m[1] * (turned[1] - seen[1]),
            n * (amplitude - whole),
            decay * (m[0] * z_before[0] + m[1] * z_before[1]),
            decay * (m[1] * z_before[0] - m[0] * z_before[1]),
            (1 - decay - gain) * n,
        )
        fade = 1 - decay
        of_responses = _slope_of_pair((even, odd), gain * n, (fade * m[0], fade * m[1]), pose_floor)
        back = dynamics.rotate(*m, turn[0], -turn[1])
        carry = (decay * n, (decay * back[0], decay * back[1]))
        carry, of_responses, sums = stage((carry, of_responses, sums))
        return carry, (of_responses, [jnp.dot(one, x, precision="highest") for x in sums])

    nothing = jnp.zeros_like(a[0])
    frames = (jnp.arange(n_frames), responses, motion, z, slopes)
    carry, (of_responses, sums) = jax.lax.scan(step, (nothing, (nothing, nothing)), frames, reverse=True)
    of_decay, of_gain, of_cosine, of_sine, of_rest = sums
    first = tuple(x[0] for x in responses)
    of_first_a = carry[0] if start == "drive" else nothing
    of_first = _slope_of_pair(first, of_first_a, carry[1], pose_floor)
    of_rest = of_rest.sum((0, 1))
    if start == "rest":
        of_rest = of_rest + jnp.dot(one, carry[0], precision="highest")[0]
    of_motion = (
        of_decay.sum(2, keepdims=True),
        of_gain.sum(2, keepdims=True),
        tuple(
            x if given.shape[2] == n_pairs else x.sum(2, keepdims=True)
            for x, given in zip((of_cosine, of_sine), motion[2], strict=True)
        ),
    )
    return tuple(x.at[0].add(y) for x, y in zip(of_responses, of_first, strict=True)), of_rest, of_motion


def _slope_of_unit(x: tuple, slopes: tuple, floor: float) -> tuple[Array, Array]:
    """Returns the slopes of x = (e, o) from those of x/sqrt(max(|x|^2, floor^2))."""
    power = x[0] * x[0] + x[1] * x[1]
    scale = jax.lax.rsqrt(jnp.maximum(power, floor**2))
    even, odd = x[0] * scale, x[1] * scale
    along = jnp.where(power > floor**2, even * slopes[0] + odd * slopes[1], 0)
    return scale * (slopes[0] - even * along), scale * (slopes[1] - odd * along)


def _slope_of_pair(x: tuple, of_amplitude: Array, of_pose: tuple, pose_floor: float) -> tuple[Array, Array]:
    """Returns the slopes of e and o from those of what `decompose` makes of them."""
    even, odd = _slope_of_unit(x, of_pose, pose_floor)
    power = x[0] * x[0] + x[1] * x[1]
    inverse = jax.lax.rsqrt(jnp.maximum(power, AMPLITUDE_FLOOR**2))
    radial = jnp.where(power > AMPLITUDE_FLOOR**2, of_amplitude * inverse, 0)
    return even + radial * x[0], odd + radial * x[1]


evolve_pairs.defvjp(_keep, _slopes)
