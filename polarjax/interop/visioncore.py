"""Weights of VisionCore's Polar-V1 (PyTorch, October 2025) as polarjax parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polarjax.core import ConfigError, closest
from polarjax.models.polar_v1 import PolarV1
from polarjax.ops.dynamics import wave_vectors

SUMMARIES = ("last", "fast", "slow", "derivative", "energy")
FRAME_SHAPE = (51, 51)


def import_model(config: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> tuple[PolarV1, dict[str, Any]]:
    """Builds the reference's model with its weights.

    Args:
      config: the reference's YAML as a dict with the keys convnet, modulator, recurrent, readout.
      state: names of the torch state_dict -> NumPy arrays; with or without a `model.` prefix, with or without the
        duplicates `recurrent.modulator.*` that the reference creates on its first forward pass.

    Returns:
      (module, params) with `module.apply({'params': params}, stimulus [B,T,H,W,C], gaze [B,T,2])[0]` = log rates
      [B,N], log spikes/bin; float32, or float64 where x64 is on. The module takes frames of any size.

    Raises:
      ConfigError: an entry of the config or of the state is missing, unexpected or has the wrong shape.

    Source: VisionCore, models/polar_v1, and the conventions of its MultiDatasetV1Model.
    """
    state = _clean(state)
    kwargs = _module_kwargs(config)
    n_units = _array(state, "readouts.0.bias").shape[0]
    n_channels = _array(state, "convnet.qfb.dw_even.weight").shape[0]
    module = PolarV1(n_units=(n_units,), frame_shape=(*FRAME_SHAPE, n_channels), **kwargs)
    reader = _Reader(state)
    params = _convert(reader, module)
    unexpected = sorted(set(state) - reader.read - _ignored(state))
    if unexpected:
        raise ConfigError(
            f"The state holds entries that the config has no place for: {', '.join(unexpected)}. "
            "Usual cause: weights and YAML of different models."
        )
    dtype = jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32
    return module, jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def _clean(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Strips `model.` and drops the duplicated modulator."""
    bare = {name.removeprefix("model."): np.asarray(value) for name, value in state.items()}
    return {name: value for name, value in bare.items() if not name.startswith("recurrent.modulator.")}


def _ignored(state: Mapping[str, np.ndarray]) -> set[str]:
    """The head of self-supervised learning takes no part in the rates."""
    return {name for name in state if name.startswith("recurrent.jepa.")}


def _section(config: Mapping[str, Any], name: str, known: tuple[str, ...], kinds: tuple[str, ...]) -> dict[str, Any]:
    if name not in config:
        raise ConfigError(f"The reference's config has no section {name!r}; it has {', '.join(sorted(config))}.")
    section = config[name] or {"type": "none"}
    kind, fields = section.get("type", kinds[0]), dict(section.get("params") or {})
    if kind not in kinds:
        raise ConfigError(f"config[{name!r}]['type'] is {kind!r}; allowed are {', '.join(kinds)}.")
    for field in fields:
        if field not in known:
            raise ConfigError(f"config[{name!r}]['params'] has an unknown entry {field!r}{closest(field, known)}.")
    return {"type": kind, **fields}


def _module_kwargs(config: Mapping[str, Any]) -> dict[str, Any]:
    convnet = _section(config, "convnet", ("n_pyramid_levels", "n_pairs", "kernel_size", "in_channels"), ("polar",))
    modulator = _section(
        config, "modulator", ("beh_dim", "dt", "use_pos_fourier", "Kpos", "init_pos_freq_cpx"), ("polar", "none")
    )
    known = "dt lambda_fix lambda_sac alpha_fast alpha_slow learnable_alphas base_freq_cpx use_behavior use_jepa"
    recurrent = _section(config, "recurrent", (*known.split(), "proj_dim", "tau", "jepa_delta"), ("polar",))
    _section(config, "readout", ("n_units", "bias", "initial_std", "initial_mean_scale"), ("polar",))
    behaves = modulator["type"] == "polar" and recurrent.get("use_behavior", True)
    defaults = {"dt": 1 / 240, "lambda_fix": 10.0, "lambda_sac": 40.0, "alpha_fast": 0.74, "alpha_slow": 0.95}
    constants = {name: float(recurrent.get(name, value)) for name, value in defaults.items()}
    return {
        "dt": constants["dt"],
        "pixels_per_degree": 1.0,
        "n_levels": int(convnet.get("n_pyramid_levels", 4)),
        "n_pairs": int(convnet.get("n_pairs", 16)),
        "kernel_size": int(convnet.get("kernel_size", 7)),
        "filters": "separable",
        "pyramid_normalized": False,
        "pose_floor": 1e-6,
        "gaze": "raw" if behaves else "none",
        "code_width": int(modulator.get("beh_dim", 128)),
        "retinal_slip": False,
        # the reference forgets the 2 pi of cycles/pixel
        "max_velocity": 50.0 / (2 * np.pi),
        "dynamics": "framewise" if behaves else "none",
        "base_frequency": float(recurrent.get("base_freq_cpx", 0.15)),
        "fixation_rate": constants["lambda_fix"],
        "saccade_rate": constants["lambda_sac"],
        "alpha_fast": constants["alpha_fast"],
        "alpha_slow": constants["alpha_slow"],
        "summaries": SUMMARIES,
        "bias_correction": False,
        "standardize": False,
        "readout": "per_level",
        "link": "exp",
    }


class _Reader:
    """Reads entries once each, in torch's layout, checking shapes; remembers what was read."""

    def __init__(self, state: Mapping[str, np.ndarray]):
        self.state, self.read = state, set()

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
    summarizer = "recurrent.summarizer.alpha_{}_logit"
    params["alphas"] = {f"{name}_logit": read(summarizer.format(name)) for name in ("fast", "slow")}
    if module.uses_gaze:
        params |= _convert_behavior(read, module)
    params["readout"] = _convert_readout(read, module)
    return params


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
    sizes = {"gate": ("q", 1), "velocity": ("veff", 2), "gain": ("gam", n_levels * m), "offset": ("rho", n_levels * m)}
    behavior = {ours: read.dense(f"{heads}.head_{theirs}", width, n) for ours, (theirs, n) in sizes.items()}
    behavior |= {"first": read.dense(f"{heads}.fc1", width, width), "second": read.dense(f"{heads}.fc2", width, width)}
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
    return np.log(np.expm1(rate * np.log(2.0) / start))


def _check_waves(waves: np.ndarray, module: PolarV1) -> None:
    expected = wave_vectors(module.n_levels, module.n_pairs, module.base_frequency)
    if not np.allclose(waves, expected, rtol=1e-4, atol=1e-6):
        raise ConfigError(
            "The state's 'recurrent.dynamics.kxy' is not f0 2^-l (cos(pi m/M), sin(pi m/M)) with base_freq_cpx = "
            f"{module.base_frequency}: it differs by up to {np.abs(waves - expected).max():.3g} cycles/pixel."
        )


def _convert_readout(read: _Reader, module: PolarV1) -> dict[str, Any]:
    n, depth = module.n_units[0], len(SUMMARIES) * module.n_pairs
    levels = [f"readouts.0.readouts.{level}" for level in range(module.n_levels)]
    widths = [np.stack([read(f"{level}.{name}", n) for name in ("logsx", "logsy")], -1) for level in levels]
    readout = {
        "bias": read("readouts.0.bias", n),
        "mean": np.stack([read(f"{level}.mu", n, 2) for level in levels], 1),
        "log_width": np.stack(widths, 1),
        "correlation": np.stack([read(f"{level}.rho", n) for level in levels], 1),
        "kernel": np.stack([read(f"{level}.features.weight", n, depth, 1, 1)[:, :, 0, 0] for level in levels], 1),
    }
    return {name: value[None] for name, value in readout.items()}
