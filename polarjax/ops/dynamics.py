"""How amplitude and pose move in time: relaxation at a rate set by saccades, rotation by retinal motion.

Time is the leading axis of every sequence here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact


def wave_vectors(n_levels: int, n_pairs: int, base_frequency: float) -> np.ndarray:
    """Returns k [L, M, 2], cycles/pixel: k_{l,m} = f0 2^-l (cos(pi m/M), sin(pi m/M)) (Polar-V1)."""
    angle = np.pi * np.arange(n_pairs) / n_pairs
    octave = base_frequency * 0.5 ** np.arange(n_levels)
    return octave[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def phase_step(
    velocity: Float[Array, "... 2"],
    wave_vector: Float[Array, "L M 2"],
    gain: Float[Array, "... L M"],
    offset: Float[Array, "... L M"],
    *,
    dt: float,
) -> Float[Array, "... L M"]:
    """Returns the phase by which a moving image turns each pair in one frame.

        d_phi = 2 pi gamma (k . v) dt + rho

    Args:
      velocity: of the image on the retina, pixels/s.
      gain: gamma, 1.
      offset: rho, rad.
      dt: frame duration, s.

    Source: Polar-V1, with the 2 pi that cycles/pixel need.
    """
    cycles = jnp.einsum("...d,lmd->...lm", velocity, wave_vector, precision=jax.lax.Precision.HIGHEST)
    return 2 * jnp.pi * gain * cycles * dt + offset


def relaxation_rate(
    saccade_gate: Float[Array, "*S"], fixation_rate: Float[Array, ""], saccade_rate: Float[Array, ""]
) -> Float[Array, "*S"]:
    """Returns lambda = (1 - q) lambda_fix + q lambda_sac, 1/s, for a saccade probability q (Polar-V1)."""
    return (1 - saccade_gate) * fixation_rate + saccade_gate * saccade_rate


def rotate(
    even: Float[Array, "..."],
    odd: Float[Array, "..."],
    cosine: Float[Array, "..."],
    sine: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Turns (even, odd) counter-clockwise by the angle of (cosine, sine)."""
    return cosine * even - sine * odd, sine * even + cosine * odd


def relax_amplitude(
    amplitude: Float[Array, "..."], resting_amplitude: Float[Array, "..."], decay: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Relaxes an amplitude towards rest for one frame: A' = abar + (A - abar) g.

    Args:
      decay: g = exp(-lambda dt), in (0, 1).

    Source: Polar-V1; exact for constant lambda, so stable for any dt.
    """
    return resting_amplitude + (amplitude - resting_amplitude) * decay


def drive_amplitude(
    previous: Float[Array, "..."],
    observed: Float[Array, "..."],
    resting_amplitude: Float[Array, "..."],
    decay: Float[Array, "..."],
    drive_gain: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Advances the amplitude memory by one frame.

        a_t = abar + g_t (a_{t-1} - abar) + (lambda_fix / lambda_t) (1 - g_t) (A_t - abar)

    which solves da/dt = -lambda (a - abar) + lambda_fix (A - abar) exactly for an input held over the frame. In
    fixation a follows A with tau = 1/lambda_fix; a saccade shortens the memory and scales the drive down.

    Args:
      decay: g = exp(-lambda dt), in (0, 1).
      drive_gain: (lambda_fix / lambda) (1 - g).

    Source: Polar-V1, recurrent form.
    """
    return (
        resting_amplitude
        + decay * (previous - resting_amplitude)
        + drive_gain * (observed - resting_amplitude)
    )


def drive_pose(
    previous: tuple[Float[Array, "..."], Float[Array, "..."]],
    observed: tuple[Float[Array, "..."], Float[Array, "..."]],
    rotation: tuple[Float[Array, "..."], Float[Array, "..."]],
    decay: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Predicts the pose by rotation, then corrects it towards the observed one.

        z_t = g_t R(d_phi_t) z_{t-1} + (1 - g_t) U_t

    Args:
      previous, observed: z_{t-1} and U_t as (even, odd).
      rotation: (cos d_phi, sin d_phi).
      decay: g = exp(-lambda dt), in (0, 1).

    Source: Polar-V1, recurrent form. The unit pose is u_t = z_t/|z_t|.
    """
    even, odd = rotate(*previous, *rotation)
    return decay * even + (1 - decay) * observed[0], decay * odd + (1 - decay) * observed[1]


def linear_recurrence(
    factor: Inexact[Array, "T *F"], term: Inexact[Array, "T *S"], start: Inexact[Array, "*S"]
) -> Inexact[Array, "T *S"]:
    """Solves x_t = factor_t x_{t-1} + term_t from x_{-1} = start by a parallel prefix of depth log T; real or complex.

    Args:
      factor: may have axes of length 1 where it is the same for all.

    Source: Blelloch (1990), Prefix sums and their applications.
    """
    term = jnp.concatenate([(factor[0] * start + term[0])[None], term[1:]])

    def combine(earlier: tuple, later: tuple) -> tuple:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    return jax.lax.associative_scan(combine, (factor, term))[1]


def evolve_amplitude(
    observed: Float[Array, "T *S M"],
    start: Float[Array, "*S M"],
    resting_amplitude: Float[Array, " M"],
    decay: Float[Array, "T *F"],
    drive_gain: Float[Array, "T *F"],
    *,
    method: str = "scan",
) -> Float[Array, "T *S M"]:
    """Runs `drive_amplitude` over time from a_{-1} = start.

    Args:
      decay, drive_gain: of the same rank as `observed`, with axes of length 1 where they are the same for all.
      method: 'scan' goes frame by frame and is the definition; 'associative' is `linear_recurrence`.
    """
    rest = jnp.broadcast_to(resting_amplitude, start.shape)
    if method == "associative":
        term = drive_gain * (observed - rest[None])
        return rest[None] + linear_recurrence(decay, term, start - rest)

    def step(amplitude: Array, inputs: tuple) -> tuple:
        amplitude = drive_amplitude(amplitude, inputs[0], rest, inputs[1], inputs[2])
        return amplitude, amplitude

    return jax.lax.scan(step, start, (observed, decay, drive_gain))[1]


def evolve_pose(
    observed: tuple[Float[Array, "T *S"], Float[Array, "T *S"]],
    start: tuple[Float[Array, "*S"], Float[Array, "*S"]],
    rotation: tuple[Float[Array, "T *R"], Float[Array, "T *R"]],
    decay: Float[Array, "T *F"],
    *,
    method: str = "scan",
) -> tuple[Float[Array, "T *S"], Float[Array, "T *S"]]:
    """Runs `drive_pose` over time from z_{-1} = start; returns z before it is normalised.

    Args:
      rotation, decay: of the same rank as `observed`, with axes of length 1 where they are the same for all.
      method: 'scan' goes frame by frame and is the definition; 'associative' is `linear_recurrence`.
    """
    cosine, sine = rotation
    if method == "associative":
        turned = linear_recurrence(
            decay * jax.lax.complex(cosine, sine),
            (1 - decay) * jax.lax.complex(*observed),
            jax.lax.complex(*start),
        )
        return turned.real, turned.imag

    def step(pose: tuple, inputs: tuple) -> tuple:
        seen, turn, fade = inputs
        pose = drive_pose(pose, seen, turn, fade)
        return pose, pose

    return jax.lax.scan(step, start, (observed, (cosine, sine), decay))[1]
