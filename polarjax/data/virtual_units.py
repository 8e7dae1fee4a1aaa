"""Simple and complex cells with known parameters: Gabor energy, amplitude memory, normalisation, saccadic gain.

Sources: energy model (Adelson & Bergen 1985, JOSA A 2); divisive normalisation (Heeger 1992, Vis Neurosci 9) by
local contrast (Bonin, Mante & Carandini 2005, J Neurosci 25); saccadic suppression and rebound
(Reppas, Usrey & Reid 2002, Neuron 35).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

TAU_FIX_S = 0.100
TAU_SAC_S = 0.025
GATE_SHARPNESS = 0.2  # s/deg
GATE_THRESHOLD = 20.0  # deg/s
AMPLITUDE_FLOOR = 1e-6  # of the squared amplitude
CONTRAST_SPREAD_DEG = 0.25
SEMI_SATURATION = 0.2  # local RMS contrast at which the drive is divided by twice what it is at none
SATURATION = 4.0  # drive at which the response is half of what it would be without compression
SUPPRESSION_TAU_S = 0.015
REBOUND_PEAK_S = 0.080
SACCADE_S = 0.040  # a gate open for this long brings suppression and rebound to their full strength
MEMORY_FRAMES_S = 0.5


class Units(NamedTuple):
    """True parameters of N units.

    Attributes:
      is_complex: complex cells follow the amplitude, simple cells its projection on one phase.
      position_deg: centre of the receptive field from the centre of the window, x right and y up.
      orientation_deg: direction of the wave vector, 0 to 180 counter-clockwise from x.
      cycles_per_degree: spatial frequency.
      envelope_deg: standard deviation of the Gaussian envelope.
      phase: preferred phase of simple cells, radians.
      suppression: share of the drive lost in a saccade.
      rebound: share of the drive gained about 80 ms after a saccade.
      threshold: of the drive, in units of its 95th percentile.
      exponent: of the drive beyond the threshold.
      baseline: share of the mean rate that is always there.
      mean_rate: spikes/s over the training tier.
    """

    is_complex: Bool[np.ndarray, " N"]
    position_deg: Float[np.ndarray, "N 2"]
    orientation_deg: Float[np.ndarray, " N"]
    cycles_per_degree: Float[np.ndarray, " N"]
    envelope_deg: Float[np.ndarray, " N"]
    phase: Float[np.ndarray, " N"]
    suppression: Float[np.ndarray, " N"]
    rebound: Float[np.ndarray, " N"]
    threshold: Float[np.ndarray, " N"]
    exponent: Float[np.ndarray, " N"]
    baseline: Float[np.ndarray, " N"]
    mean_rate: Float[np.ndarray, " N"]


def draw_units(rng: np.random.Generator, n_units: int) -> Units:
    """Draws units, every second one complex; frequency and mean rate are log-uniform, the other parameters uniform.

    Args:
      rng: source of randomness.
      n_units: N.
    """
    is_complex = np.arange(n_units) % 2 == 1
    frequency = np.exp(rng.uniform(np.log(1.0), np.log(5.0), n_units))
    envelope = np.minimum(rng.uniform(0.4, 0.6, n_units) / frequency, 0.3)
    # Wide receptive fields lie closer to the centre, so that the window holds them.
    radius = np.minimum(0.4, 0.75 - 1.5 * envelope) * np.sqrt(rng.uniform(0.0, 1.0, n_units))
    angle = rng.uniform(0.0, 2.0 * np.pi, n_units)
    return Units(
        is_complex=is_complex,
        position_deg=np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1),
        orientation_deg=rng.uniform(0.0, 180.0, n_units),
        cycles_per_degree=frequency,
        envelope_deg=envelope,
        phase=rng.uniform(-np.pi, np.pi, n_units),
        suppression=rng.uniform(0.15, 0.45, n_units),
        rebound=rng.uniform(0.15, 0.45, n_units),
        threshold=np.where(is_complex, rng.uniform(0.0, 0.15, n_units), 0.0),
        exponent=rng.uniform(1.0, 1.25, n_units),
        baseline=rng.uniform(0.1, 0.25, n_units),
        mean_rate=np.exp(rng.uniform(np.log(5.0), np.log(30.0), n_units)),
    )


def make_receptive_fields(
    units: Units, window_size: int, pixels_per_degree: float
) -> tuple[Float[np.ndarray, "P N"], Float[np.ndarray, "P N"], Float[np.ndarray, "P N"]]:
    """Builds Gabor quadrature pairs and the Gaussians of the local contrast.

    Args:
      units: whose receptive fields.
      window_size: height and width of the window, pixels; P is its square, rows first.
      pixels_per_degree: of the window.

    Returns:
      even and odd filters of zero mean and unit norm, and contrast weights that sum to 1.
    """
    offset = (np.arange(window_size) - (window_size - 1) / 2) / pixels_per_degree
    x = np.tile(offset, window_size)[:, None] - units.position_deg[None, :, 0]
    y = np.repeat(-offset, window_size)[:, None] - units.position_deg[None, :, 1]
    squared = x**2 + y**2
    envelope = np.exp(-0.5 * squared / units.envelope_deg[None] ** 2)
    angle = np.deg2rad(units.orientation_deg)[None]
    wave = 2.0 * np.pi * units.cycles_per_degree[None] * (x * np.cos(angle) + y * np.sin(angle))
    filters = []
    for carrier in (np.cos(wave), np.sin(wave)):
        gabor = envelope * (carrier - (envelope * carrier).sum(0) / envelope.sum(0))
        filters.append((gabor / np.linalg.norm(gabor, axis=0)).astype(np.float32))
    surround = np.exp(-0.5 * squared / CONTRAST_SPREAD_DEG**2)
    return filters[0], filters[1], (surround / surround.sum(0)).astype(np.float32)


def saccade_gate(gaze: Float[np.ndarray, "K T 2"], rate_hz: float) -> Float[np.ndarray, "K T"]:
    """Opens from 0 to 1 as the speed of gaze (backward differences, 0 at the first frame) passes 20 deg/s."""
    speed = np.zeros(gaze.shape[:2])
    speed[:, 1:] = np.linalg.norm(np.diff(np.asarray(gaze, np.float64), axis=1), axis=-1) * rate_hz
    return 1.0 / (1.0 + np.exp(-GATE_SHARPNESS * (speed - GATE_THRESHOLD)))


def remember_amplitude(
    amplitude: Float[np.ndarray, "K T N"], gate: Float[np.ndarray, "K T"], rate_hz: float
) -> Float[np.ndarray, "K T N"]:
    """Leaky memory of the amplitude: 100 ms in fixation, 25 ms in saccades.

    a_t = g a_{t-1} + (lambda_fix / lambda)(1 - g) A_t, a_0 = A_0, with lambda = (1 - q) lambda_fix + q lambda_sac and
    g = exp(-lambda dt): exact for a drive that is constant within a frame.
    """
    decay_rate = (1.0 - gate) / TAU_FIX_S + gate / TAU_SAC_S
    keep = np.exp(-decay_rate / rate_hz)
    take = (1.0 - keep) / (TAU_FIX_S * decay_rate)
    memory = np.empty_like(amplitude)
    memory[:, 0] = amplitude[:, 0]
    for t in range(1, amplitude.shape[1]):
        memory[:, t] = keep[:, t, None] * memory[:, t - 1] + take[:, t, None] * amplitude[:, t]
    return memory


def saccade_gain(gate: Float[np.ndarray, "K T"], units: Units, rate_hz: float) -> Float[np.ndarray, "K T N"]:
    """Multiplies the drive: less during a saccade, more 50 to 150 ms after it; causal in the gate."""
    seconds = np.arange(round(MEMORY_FRAMES_S * rate_hz)) / rate_hz
    decay = np.exp(-1.0 / (SUPPRESSION_TAU_S * rate_hz))
    during = np.asarray(scipy.signal.lfilter([1.0 - decay], [1.0, -decay], gate, axis=1))
    kernel = (
        (seconds / REBOUND_PEAK_S) ** 3
        * np.exp(3.0 * (1.0 - seconds / REBOUND_PEAK_S))
        / (SACCADE_S * rate_hz)
    )
    after = np.minimum(scipy.signal.lfilter(kernel, [1.0], gate, axis=1), 1.0)
    strengths = units.suppression[None, None], units.rebound[None, None]
    return 1.0 - strengths[0] * during[..., None] + strengths[1] * after[..., None]


def firing_rate(
    units: Units,
    even: Float[np.ndarray, "K T N"],
    odd: Float[np.ndarray, "K T N"],
    contrast: Float[np.ndarray, "K T N"],
    gaze: Float[np.ndarray, "K T 2"],
    is_training: Bool[np.ndarray, " K"],
    rate_hz: float,
) -> Float[np.ndarray, "K T N"]:
    """Turns filter responses into rates.

    Args:
      units: true parameters.
      even: response of the even filters to (luminance - 127)/255.
      odd: response of the odd filters.
      contrast: local RMS contrast.
      gaze: degrees.
      is_training: trials over which the drive is scaled and the mean rate is reached.
      rate_hz: frames per second.

    Returns:
      Spikes per second.
    """
    amplitude = np.sqrt(np.maximum(even**2 + odd**2, AMPLITUDE_FLOOR))
    gate = saccade_gate(gaze, rate_hz)
    memory = remember_amplitude(amplitude, gate, rate_hz)
    projection = (even * np.cos(units.phase) + odd * np.sin(units.phase)) / amplitude
    drive = memory * np.where(units.is_complex, 1.0, np.maximum(projection, 0.0))
    drive *= saccade_gain(gate, units, rate_hz) / (SEMI_SATURATION + contrast)
    drive /= np.quantile(drive[is_training], 0.95, axis=(0, 1))
    response = np.maximum(drive - units.threshold, 0.0) ** units.exponent / (1.0 + drive / SATURATION)
    response /= response[is_training].mean(axis=(0, 1))
    return units.mean_rate * (units.baseline + (1.0 - units.baseline) * response)
