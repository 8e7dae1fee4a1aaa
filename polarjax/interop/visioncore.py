"""Weights of VisionCore's Polar-V1 (PyTorch, October 2025) as polarjax parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.core import ConfigError, closest
from polarjax.interop.visioncore_config import SUMMARIES, behaves, fields_of, kind_of, module_kwargs
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops.dynamics import wave_vectors

FRAME_SHAPE = (51, 51)


def import_model(config: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[PolarV1, dict[str, Any]]:
    """Builds the reference's model with its weights.

    Args:
      config: the reference's YAML as a dict with the keys convnet, modulator, recurrent, readout.
      state: names of the torch state_dict -> NumPy arrays; with or without a `model.` prefix, with or without the
        duplicates `recurrent.modulator.*` that the reference creates on its first forward pass.

    Returns:
      (module, params) with `module.apply({'params': params}, stimulus [B,T,H,W,C], gaze [B,T,2])[0]` = log rates
      [B,N], log spikes/bin; float32, or float64 where x64 is on. The module takes frames of any size. Readouts of
      several sessions are stacked: example i is read by session i % S, padded units have log rate 0.

    Raises:
      ConfigError: an entry of the config or of the state is missing, unexpected or has the wrong shape.

    Source: VisionCore, models/polar_v1, and the conventions of its MultiDatasetV1Model.
    """
    state = _clean(state)
    kwargs = module_kwargs(config)
    n_units = tuple(len(_array(state, f"readouts.{i}.readouts.0.mu")) for i in range(_n_sessions(state)))
    n_channels = len(_array(state, "convnet.qfb.dw_even.weight"))
    module = PolarV1(n_units=n_units, frame_shape=(*FRAME_SHAPE, n_channels), **kwargs)
    reader = _Reader(state, config)
    params = _convert(reader, module)
    unexpected = sorted(set(state) - reader.read - _ignored(state, config))
    if unexpected:
        raise ConfigError(
            f"The state holds entries that the config has no place for: {', '.join(unexpected)}. "
            "Usual cause: weights and YAML of different models."
        )
    dtype = jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32
    return module, jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def _clean(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Strips `model.` and folds the duplicated modulator into the one that it repeats."""
    bare = {}
    for name, value in state.items():
        if not isinstance(value, np.ndarray | np.generic | jax.Array):
            raise ConfigError(
                f"The state's {name!r} is a {type(value).__module__}.{type(value).__name__}; NumPy arrays are needed: "
                "{name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}."
            )
        bare[name.removeprefix("model.")] = np.asarray(value)
    repeated = "recurrent.modulator."
    folded = {
        name.removeprefix("recurrent."): bare.pop(name) for name in list(bare) if name.startswith(repeated)
    }
    return folded | bare


def _n_sessions(state: Mapping[str, np.ndarray]) -> int:
    return max(len({name.split(".")[1] for name in state if name.startswith("readouts.")}), 1)


def _ignored(state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> set[str]:
    """What takes no part in the rates: the head of self-supervised learning, and a modulator that is not used."""
    unused = ["recurrent.jepa."]
    if kind_of(config, "modulator") == "polar" and not behaves(config):
        unused += ["modulator.", "recurrent.dynamics."]
    return {name for name in state if name.startswith(tuple(unused))}


class _Reader:
    """Reads entries once each, in torch's layout, checking shapes; remembers what was read."""

    def __init__(self, state: Mapping[str, np.ndarray], config: Mapping[str, Any]):
        self.state, self.read = state, set()
        self.learned_alphas = bool(fields_of(config, "recurrent").get("learnable_alphas", True))
        self.readout_bias = bool(fields_of(config, "readout").get("bias", True))

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        value = _array(self.state, name)
        if value.shape != shape:
            raise ConfigError(
                f"The state's {name!r} has shape {list(value.shape)}, the config asks for {list(shape)}. "
                "Usual cause: weights and YAML of different models."
            )
        self.read.add(name)
        return value.astype(np.float64)

    def dense(self, name: str, n_in: int, n_out: int) -> dict[str, np.ndarray]:
        """Reads a linear layer: [out, in] becomes [in, out]."""
        return {"kernel": self(f"{name}.weight", n_out, n_in).T, "bias": self(f"{name}.bias", n_out)}


def _array(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in state:
        raise ConfigError(f"The state has no entry {name!r}{closest(name, state)}.")
    return np.asarray(state[name])


def _convert(read: _Reader, module: PolarV1) -> dict[str, Any]:
    c, m, k = module.frame_shape[2], module.n_pairs, module.kernel_size
    params: dict[str, Any] = {"filters": {}}
    for name in ("even", "odd"):
        mixing = read(f"convnet.qfb.mix_{name}.weight", m, c, 1, 1)[:, :, 0, 0].T
        spatial = read(f"convnet.qfb.dw_{name}.weight", c, 1, k, k).transpose(2, 3, 1, 0)
        bias = read(f"convnet.qfb.mix_{name}.bias", m)
        params["filters"][name] = {"spatial": {"kernel": spatial}, "mixing": {"kernel": mixing, "bias": bias}}
    starts = {"fast": module.alpha_fast, "slow": module.alpha_slow}
    params["alphas"] = {f"{name}_logit": _read_logit(read, name, alpha) for name, alpha in starts.items()}
    if module.uses_gaze:
        params |= _convert_behavior(read, module)
    sessions = [_convert_readout(read, module, session) for session in range(len(module.n_units))]
    params["readout"] = {name: _stack([session[name] for session in sessions]) for name in sessions[0]}
    return params


def _read_logit(read: _Reader, name: str, alpha: float) -> np.ndarray:
    """Reads the decay of an average; a reference with constants that are not learned keeps none."""
    entry = f"recurrent.summarizer.alpha_{name}_logit"
    return (
        read(entry) if entry in read.state or read.learned_alphas else np.asarray(np.log(alpha / (1 - alpha)))
    )


def _convert_behavior(read: _Reader, module: PolarV1) -> dict[str, Any]:
    width, n_levels, m = module.code_width, module.n_levels, module.n_pairs
    gaze, heads, dynamics = "modulator.gaze_encoder", "modulator.beh_encoder", "recurrent.dynamics"
    encoder = {
        "log_threshold": read(f"{gaze}.sac_log_thr"),
        "sharpness": read(f"{gaze}.sac_invT"),
        "hidden": read.dense(f"{gaze}.proj1", 20, width),
        "code": read.dense(f"{gaze}.proj2", width, width),
    }
    for axis in "xy":
        encoder[f"log_frequency_{axis}"] = read(f"{gaze}.pos_logw_{axis}", 2)
        encoder[f"phase_{axis}"] = read(f"{gaze}.pos_phi_{axis}", 2)
    sizes = {
        "gate": ("q", 1),
        "velocity": ("veff", 2),
        "gain": ("gam", n_levels * m),
        "offset": ("rho", n_levels * m),
    }
    behavior = {ours: read.dense(f"{heads}.head_{theirs}", width, n) for ours, (theirs, n) in sizes.items()}
    behavior |= {
        "first": read.dense(f"{heads}.fc1", width, width),
        "second": read.dense(f"{heads}.fc2", width, width),
    }
    _check_waves(read(f"{dynamics}.kxy", n_levels, m, 2), module)
    rates = {
        "log_fixation": _raw_rate(f"{dynamics}.lambda_fix", read, module.fixation_rate),
        "log_saccade": _raw_rate(f"{dynamics}.lambda_sac", read, module.saccade_rate),
    }
    rest = read(f"{dynamics}.a_bar", n_levels, m)
    return {"gaze_encoder": encoder, "behavior_heads": behavior, "rates": rates, "resting_amplitude": rest}


def _raw_rate(name: str, read: _Reader, start: float) -> np.ndarray:
    """Inverts lambda = start softplus(raw)/softplus(0)."""
    rate = read(name)
    if not rate > 0:
        raise ConfigError(f"The state's {name!r} is {float(rate)} 1/s; a relaxation rate must be positive.")
    return np.asarray(np.log(np.expm1(rate * np.log(2.0) / start)))


def _check_waves(waves: np.ndarray, module: PolarV1) -> None:
    expected = wave_vectors(module.n_levels, module.n_pairs, module.base_frequency)
    if not np.allclose(waves, expected, rtol=1e-4, atol=1e-6):
        raise ConfigError(
            "The state's 'recurrent.dynamics.kxy' is not f0 2^-l (cos(pi m/M), sin(pi m/M)) with base_freq_cpx = "
            f"{module.base_frequency}: it differs by up to {np.abs(waves - expected).max():.3g} cycles/pixel."
        )


def _convert_readout(read: _Reader, module: PolarV1, session: int) -> dict[str, np.ndarray]:
    n, depth = module.n_units[session], len(SUMMARIES) * module.n_pairs
    bias = f"readouts.{session}.bias"
    levels = [f"readouts.{session}.readouts.{level}" for level in range(module.n_levels)]
    widths = [np.stack([read(f"{level}.{name}", n) for name in ("logsx", "logsy")], -1) for level in levels]
    kernels = [read(f"{level}.features.weight", n, depth, 1, 1)[:, :, 0, 0] for level in levels]
    return {
        "bias": read(bias, n) if bias in read.state or read.readout_bias else np.zeros(n),
        "mean": np.stack([read(f"{level}.mu", n, 2) for level in levels], 1),
        "log_width": np.stack(widths, 1),
        "correlation": np.stack([read(f"{level}.rho", n) for level in levels], 1),
        "kernel": np.stack(kernels, 1),
    }


def _stack(sessions: list[np.ndarray]) -> np.ndarray:
    """Stacks [n, ..] of every session to [S, N, ..], padded with 0."""
    padded = np.zeros((len(sessions), max(map(len, sessions)), *sessions[0].shape[1:]))
    for row, values in zip(padded, sessions, strict=True):
        row[: len(values)] = values
    return padded
