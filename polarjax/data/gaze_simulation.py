"""Simulated gaze: ocular drift, microsaccades and saccades on the main sequence.

Sources: drift as low-passed Brownian motion (Engbert & Kliegl 2004, Psychol Sci 15; Kuang et al. 2012, Curr Biol 22);
main sequence (Bahill, Clark & Stark 1975, Math Biosci 24); minimum-jerk profile (Flash & Hogan 1985, J Neurosci 5).
"""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

PEAK_SPEED_LIMIT = 900.0  # deg/s, where the main sequence saturates (macaque)
PEAK_SPEED_SCALE = 9.0  # deg
MINIMUM_JERK_PEAK = 1.875  # peak over mean speed of a minimum-jerk movement
DRIFT_CORRELATION_S = 0.025
REFRACTORY_S = 0.08
SACCADE_MEDIAN_DEG = 2.0
SACCADE_LOG_SPREAD = 0.6
MICROSACCADE_MEDIAN_DEG = 0.38
MICROSACCADE_LOG_SPREAD = 0.4
FIXATION_GAMMA_SHAPE = 12.0


def peak_speed(amplitude_deg: Float[np.ndarray, "*shape"] | float) -> Float[np.ndarray, "*shape"] | float:
    """Peak speed of a saccade, deg/s: v_max (1 - exp(-A/A0)), about 100 A for microsaccades, 900 at most."""
    return PEAK_SPEED_LIMIT * -np.expm1(-np.asarray(amplitude_deg) / PEAK_SPEED_SCALE)


def saccade_duration(
    amplitude_deg: Float[np.ndarray, "*shape"] | float,
) -> Float[np.ndarray, "*shape"] | float:
    """Seconds that a minimum-jerk movement of this amplitude (> 0) takes when its peak is on the main sequence."""
    return MINIMUM_JERK_PEAK * np.asarray(amplitude_deg) / peak_speed(amplitude_deg)


def minimum_jerk(phase: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Share of the way done at a share of the duration: 0 before 0, 1 after 1, speed and acceleration 0 at both."""
    phase = np.clip(phase, 0.0, 1.0)
    return phase**3 * (10.0 + phase * (6.0 * phase - 15.0))


def simulate_drift(
    rng: np.random.Generator, n_frames: int, rate_hz: float, diffusion: float
) -> Float[np.ndarray, "T 2"]:
    """Brownian drift whose velocity is correlated over 25 ms.

    Args:
      rng: source of randomness.
      n_frames: T.
      rate_hz: frames per second.
      diffusion: D, deg^2/s; the mean squared displacement grows as 4 D t beyond the correlation time.

    Returns:
      Displacement from the first frame, degrees.
    """
    decay = np.exp(-1.0 / (rate_hz * DRIFT_CORRELATION_S))
    spread = np.sqrt(2.0 * diffusion * rate_hz * (1.0 - decay) / (1.0 + decay))
    innovations = rng.standard_normal((n_frames, 2)) * np.sqrt(1.0 - decay**2)
    innovations[0] /= np.sqrt(1.0 - decay**2)
    # SciPy loads its signal processing, a second of Python, where it is first named.
    velocity = spread * scipy.signal.lfilter([1.0], [1.0, -decay], innovations, axis=0)
    path = np.cumsum(velocity, axis=0) / rate_hz
    return path - path[:1]


def _microsaccade(rng: np.random.Generator, error: np.ndarray) -> np.ndarray:
    """Displacement of a microsaccade, on average towards the place that is fixated; `error` is eye minus that place."""
    deviate = np.clip(rng.standard_normal(), -2.0, 2.0)
    amplitude = MICROSACCADE_MEDIAN_DEG * np.exp(MICROSACCADE_LOG_SPREAD * deviate)
    direction = rng.standard_normal(2) - error / MICROSACCADE_MEDIAN_DEG
    return amplitude * direction / np.linalg.norm(direction)


def _saccade(rng: np.random.Generator, eye: np.ndarray, field_deg: float) -> np.ndarray:
    """Displacement of a saccade from `eye` to a place inside the field; amplitudes are log-normal where they fit."""
    amplitude = SACCADE_MEDIAN_DEG * np.exp(SACCADE_LOG_SPREAD * rng.standard_normal(64))
    angle = rng.uniform(0.0, 2.0 * np.pi, 64)
    steps = amplitude[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inside = (np.abs(eye + steps) <= 0.95 * field_deg).all(axis=1)
    return steps[np.argmax(inside)] if inside.any() else -0.5 * eye


def _reflect(position: np.ndarray, field_deg: float) -> np.ndarray:
    """Folds positions beyond the border of the field back into it."""
    return np.abs((position - field_deg) % (4.0 * field_deg) - 2.0 * field_deg) - field_deg


def simulate_gaze(
    rng: np.random.Generator,
    n_frames: int,
    rate_hz: float,
    field_deg: float,
    *,
    fixation_s: float = 0.36,
    microsaccade_rate_hz: float = 1.1,
    diffusion: float = 20.0 / 3600.0,
) -> Float[np.ndarray, "T 2"]:
    """Simulates one trial of free viewing, or of fixation.

    Args:
      rng: source of randomness.
      n_frames: T.
      rate_hz: frames per second.
      field_deg: gaze stays within plus and minus this in x and y.
      fixation_s: mean time between saccades, gamma distributed; inf: one fixation, no saccades.
      microsaccade_rate_hz: microsaccades per second of fixation, Poisson after a refractory time of 80 ms.
      diffusion: D of the drift, deg^2/s. The default is 20 arcmin^2/s; published values are 4 (marmosets that hold a
        fixation point) to 40 (people).

    Returns:
      Gaze in degrees, x right and y up.
    """
    drift = simulate_drift(rng, n_frames, rate_hz, diffusion)
    gaze = drift + field_deg * rng.uniform(-0.5, 0.5, 2)
    seconds = np.arange(n_frames) / rate_hz
    place, ready = gaze[0].copy(), 0.0
    next_saccade = rng.uniform(0.1, 1.0) * fixation_s
    while True:
        micro = ready + REFRACTORY_S + rng.exponential(1.0 / microsaccade_rate_hz)
        is_micro = micro < next_saccade - REFRACTORY_S
        onset = micro if is_micro else next_saccade
        if onset >= seconds[-1]:
            return _reflect(gaze, field_deg).astype(np.float32)
        eye = gaze[int(onset * rate_hz)]
        step = _microsaccade(rng, eye - place) if is_micro else _saccade(rng, eye, field_deg)
        if np.abs(eye + step).max() > field_deg:
            step = -step
        duration = float(saccade_duration(float(np.linalg.norm(step))))
        gaze += minimum_jerk((seconds - onset) / duration)[:, None] * step
        ready = onset + duration
        if not is_micro:
            place = eye + step
            next_saccade = ready + rng.gamma(FIXATION_GAMMA_SHAPE, fixation_s / FIXATION_GAMMA_SHAPE)
