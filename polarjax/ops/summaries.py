"""Summaries of amplitude and pose over time, per pair; the time axis leads and index T-1 is the newest frame."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.inverse_root import root

ENERGY_FLOOR = 1e-6
NAMES = ("last", "fast", "slow", "derivative", "energy", "even", "odd")


def ema_last(
    x: Float[Array, "T *S"], alpha: Float[Array, ""], *, bias_correction: bool
) -> Float[Array, "*S"]:
    """Returns the last value of an exponential moving average from 0, as a weighted sum over time.

        (1 - alpha) sum_t alpha^(T-1-t) x_t,   divided by 1 - alpha^T with `bias_correction`

    Its memory is -1/ln(alpha) frames. Without the correction a short window loses weight.

    Source: Polar-V1; the correction is that of Adam (Kingma & Ba 2015).
    """
    n_frames = x.shape[0]
    weights = (1 - alpha) * alpha ** jnp.arange(n_frames - 1, -1, -1, dtype=x.dtype)
    # Not divided: beside other devices XLA makes of that a product with the inverse, whose last bits are others.
    weights = weights * (1 / (1 - alpha**n_frames)) if bias_correction else weights
    return jnp.tensordot(weights, x, axes=1, precision=jax.lax.Precision.HIGHEST)


def ema_bias(alpha: Float[Array, ""], n_frames: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Returns 1 - alpha^n, the weight that an EMA from 0 has after n frames (Kingma & Ba 2015)."""
    return 1 - alpha**n_frames


def pose_energy(
    pose: tuple[Float[Array, "*S"], Float[Array, "*S"]],
    earlier: tuple[Float[Array, "*S"], Float[Array, "*S"]],
) -> Float[Array, "*S"]:
    """Returns the motion energy of a pose p and the pose p2 two frames earlier.

        E_c = sqrt(max(p_c^2 + ((p_c - p2_c)/2)^2, 1e-6)),   E = sqrt(max(E_even^2 + E_odd^2, 1e-6))

    For unit poses it lies in [1, sqrt 2].

    Source: Polar-V1.
    """

    def component(now: Array, before: Array) -> Array:
        return jnp.maximum(now**2 + ((now - before) / 2) ** 2, ENERGY_FLOOR)

    return root(jnp.maximum(component(pose[0], earlier[0]) + component(pose[1], earlier[1]), ENERGY_FLOOR))


def summarize(
    amplitude: Float[Array, "T *S M"],
    pose: tuple[Float[Array, "T *S M"], Float[Array, "T *S M"]],
    alpha_fast: Float[Array, ""],
    alpha_slow: Float[Array, ""],
    *,
    names: tuple[str, ...] = NAMES,
    bias_correction: bool = True,
) -> Float[Array, "*S D"]:
    """Summarises a window at its last frame; the channels are the M maps of each name, in the order of `names`.

    last = a_{T-1}; fast, slow = EMAs; derivative = a_{T-1} - a_{T-2} (0 if T = 1); energy = `pose_energy` of u_{T-1}
    and u_{max(T-3, 0)}; even, odd = a u at T-1, which keep the phase that simple cells need.

    Source: Polar-V1.
    """
    n_frames = amplitude.shape[0]
    last, now = amplitude[-1], (pose[0][-1], pose[1][-1])
    two_ago = max(n_frames - 3, 0)
    parts = {
        "last": lambda: last,
        "fast": lambda: ema_last(amplitude, alpha_fast, bias_correction=bias_correction),
        "slow": lambda: ema_last(amplitude, alpha_slow, bias_correction=bias_correction),
        "derivative": lambda: last - amplitude[max(n_frames - 2, 0)],
        "energy": lambda: pose_energy(now, (pose[0][two_ago], pose[1][two_ago])),
        "even": lambda: last * now[0],
        "odd": lambda: last * now[1],
    }
    return jnp.concatenate([parts[name]() for name in names], axis=-1)
