"""What the gaze trace says: kinematics, saccade gate, position features; causal, with a memory for streaming."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polarjax.ops.division import divide

DIRECTION_FLOOR = 1e-6
SACCADE_GATE = (
    20.0,
    0.2,
)  # threshold, degrees/s, and sharpness, s/degree: microsaccades pass, drift does not
GATE_MEMORIES = (0.8, 0.95)
# Speeds of pursuit and accelerations of small saccades, where the scaled features turn from linear to logarithmic.
VELOCITY_SCALE = 10.0
ACCELERATION_SCALE = 1000.0


class GazeMemory(NamedTuple):
    """What the features of the next frame need of the frames before.

    Attributes:
      position: gaze at the newest frame, degrees.
      velocity: at the newest frame, degrees/s.
      gate_fast, gate_slow: running averages of the saccade gate.
    """

    position: Float[Array, "B 2"]
    velocity: Float[Array, "B 2"]
    gate_fast: Float[Array, " B"]
    gate_slow: Float[Array, " B"]


class Kinematics(NamedTuple):
    """Velocity [B,T,2] and acceleration [B,T,2] of the gaze and what derives from them, per second."""

    velocity: Float[Array, "B T 2"]
    acceleration: Float[Array, "B T 2"]
    speed: Float[Array, "B T"]
    direction: Float[Array, "B T 2"]
    tangential: Float[Array, "B T"]
    normal: Float[Array, "B T"]


def initial_memory(gaze: Float[Array, "B T 2"]) -> GazeMemory:
    """Returns the memory before the first frame: at rest where the trace begins, so v_0 = a_0 = 0."""
    zero = jnp.zeros(gaze.shape[0], gaze.dtype)
    return GazeMemory(gaze[:, 0], jnp.zeros_like(gaze[:, 0]), zero, zero)


def safe_speed(velocity: Float[Array, "*B 2"]) -> Float[Array, "*B"]:
    """Returns |v| with gradient 0, not NaN, at rest."""
    squared = (velocity**2).sum(-1)
    moving = squared > 0
    return jnp.where(moving, jnp.sqrt(jnp.where(moving, squared, 1)), 0)


def kinematics(gaze: Float[Array, "B T 2"], memory: GazeMemory, *, dt: float) -> Kinematics:
    """Differentiates a gaze trace backwards in time.

        v = dg/dt,  a = dv/dt,  s = |v|,  c = v/(s + 1e-6),  a_par = v.a/(s + 1e-6),  a_perp = (v x a)/(s + 1e-6)

    Args:
      gaze: degrees, oldest first.
      dt: frame duration, s.

    Source: Polar-V1.
    """
    velocity = jnp.diff(jnp.concatenate([memory.position[:, None], gaze], 1), axis=1) / dt
    acceleration = jnp.diff(jnp.concatenate([memory.velocity[:, None], velocity], 1), axis=1) / dt
    speed = safe_speed(velocity)
    floored = speed + DIRECTION_FLOOR
    cross = velocity[..., 0] * acceleration[..., 1] - velocity[..., 1] * acceleration[..., 0]
    return Kinematics(
        velocity,
        acceleration,
        speed,
        divide(velocity, floored[..., None]),
        (velocity * acceleration).sum(-1) / floored,
        cross / floored,
    )


def retinal_slip(velocity: Float[Array, "*B 2"], pixels_per_degree: float) -> Float[Array, "*B 2"]:
    """Returns how the image of a still scene moves on the retina, pixels/s, x right and y down.

    It moves against the eye; y of the gaze points up and rows of the frame go down.

    Args:
      velocity: of the gaze, degrees/s, x right and y up.

    Source: Polar-V1, with physical units.
    """
    against = jnp.broadcast_to(jnp.asarray([-1.0, 1.0], velocity.dtype), velocity.shape)
    return velocity * against * pixels_per_degree


def running_average(x: Float[Array, "B T"], start: Float[Array, " B"], alpha: float) -> Float[Array, "B T"]:
    """Returns the exponential moving average y_t = alpha y_{t-1} + (1 - alpha) x_t from y_{-1} = start."""
    n_frames = x.shape[1]
    lag = jnp.arange(n_frames)[:, None] - jnp.arange(n_frames)[None, :]
    weights = jnp.where(lag >= 0, (1 - alpha) * alpha ** jnp.maximum(lag, 0).astype(x.dtype), 0)
    fade = alpha ** jnp.arange(1, n_frames + 1, dtype=x.dtype)
    return jnp.einsum("ts,bs->bt", weights, x, precision="highest") + start[:, None] * fade[None]


def position_features(
    position: Float[Array, "B T"], log_frequency: Float[Array, " K"], phase: Float[Array, " K"]
) -> Float[Array, "B T 2*K"]:
    """Returns sin then cos of 2 pi exp(log_frequency) x + phase for K frequencies, cycles/degree (Polar-V1)."""
    angle = 2 * jnp.pi * position[..., None] * jnp.exp(log_frequency)[None, None] + phase[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def saccade_gate(
    speed: Float[Array, "*B"], log_threshold: Float[Array, ""], sharpness: Float[Array, ""]
) -> Float[Array, "*B"]:
    """Returns q = sigma(sharpness (s - threshold)): threshold in degrees/s, sharpness in s/degree (Polar-V1)."""
    return jax.nn.sigmoid(sharpness * (speed - jnp.exp(log_threshold)))


def gaze_features(
    gaze: Float[Array, "B T 2"],
    memory: GazeMemory,
    positions: tuple[Float[Array, "B T F"], Float[Array, "B T F"]],
    gate_parameters: tuple[Float[Array, ""], Float[Array, ""]],
    *,
    dt: float,
    scaled: bool,
) -> tuple[Float[Array, "B T D"], GazeMemory]:
    """Builds the inputs of the gaze encoder and the memory for the frames to come.

    Order: x features, y features, v_x v_y s c_x c_y a_x a_y a_par a_perp q q_fast q_slow.

    Args:
      positions: `position_features` of x and of y.
      gate_parameters: log threshold and sharpness of `saccade_gate`.
      scaled: asinh of velocities by 10 degrees/s and accelerations by 1000 degrees/s^2 (accelerations reach 2e4
        and would saturate every head); False gives the reference's raw features.

    Source: Polar-V1.
    """
    motion = kinematics(gaze, memory, dt=dt)
    gate = saccade_gate(motion.speed, *gate_parameters)
    fast = running_average(gate, memory.gate_fast, GATE_MEMORIES[0])
    slow = running_average(gate, memory.gate_slow, GATE_MEMORIES[1])

    def scale(x: Array, unit: float) -> Array:
        return jnp.arcsinh(x / unit) if scaled else x

    features = [
        *positions,
        scale(motion.velocity, VELOCITY_SCALE),
        scale(motion.speed, VELOCITY_SCALE)[..., None],
        motion.direction,
        scale(motion.acceleration, ACCELERATION_SCALE),
        scale(motion.tangential, ACCELERATION_SCALE)[..., None],
        scale(motion.normal, ACCELERATION_SCALE)[..., None],
        jnp.stack([gate, fast, slow], axis=-1),
    ]
    newest = GazeMemory(gaze[:, -1], motion.velocity[:, -1], fast[:, -1], slow[:, -1])
    return jnp.concatenate(features, axis=-1), newest
