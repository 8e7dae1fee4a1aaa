"""The YAML of VisionCore's Polar-V1 as options of `PolarV1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polarjax.core import ConfigError, closest

SUMMARIES = ("last", "fast", "slow", "derivative", "energy")
KNOWN = {
    "convnet": ("n_pyramid_levels", "n_pairs", "kernel_size", "in_channels"),
    "modulator": ("beh_dim", "dt", "use_pos_fourier", "Kpos", "init_pos_freq_cpx"),
    "recurrent": (
        *("dt", "lambda_fix", "lambda_sac", "alpha_fast", "alpha_slow", "learnable_alphas", "base_freq_cpx"),
        *("use_behavior", "use_jepa", "proj_dim", "tau", "jepa_delta"),
    ),
    "readout": ("n_units", "bias", "initial_std", "initial_mean_scale"),
}


def kind_of(config: Mapping[str, Any], name: str) -> str:
    """Returns the type of a section; 'none' where it has none."""
    return str(fields_of(config, name).get("type") or "none")


def behaves(config: Mapping[str, Any]) -> bool:
    """Whether the gaze acts on the image's code."""
    return kind_of(config, "modulator") == "polar" and bool(
        fields_of(config, "recurrent").get("use_behavior", True)
    )


def fields_of(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a section's type and parameters, which stand under `params` or beside `type`."""
    if name not in config:
        raise ConfigError(
            f"The reference's config has no section {name!r}; it has {', '.join(sorted(config)) or 'none'}."
        )
    section = dict(config[name] or {})
    parameters = section.pop("params", None) or {}
    return {**section, **parameters}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind, known = kind_of(config, name), KNOWN[name]
    allowed = ("polar", "none") if name == "modulator" else ("polar",)
    if kind not in allowed:
        raise ConfigError(f"config[{name!r}]['type'] is {kind!r}; allowed are {', '.join(allowed)}.")
    fields = fields_of(config, name)
    fields.pop("type", None)
    for field in fields:
        if field not in known:
            raise ConfigError(
                f"config[{name!r}]['params'] has an unknown entry {field!r}{closest(field, known)}."
            )
    return fields


def _check_gaze(modulator: dict[str, Any], dt: float) -> None:
    """Checks that the gaze encoder has the features that `PolarV1` computes."""
    for field, needed in (("use_pos_fourier", True), ("Kpos", 2)):
        if modulator.get(field, needed) != needed:
            raise ConfigError(
                f"config['modulator']['params'][{field!r}] is {modulator[field]!r}; only {needed!r} can be imported."
            )
    if not np.isclose(float(modulator.get("dt", dt)), dt, rtol=1e-3):
        raise ConfigError(
            f"The config's modulator has dt = {modulator['dt']} s and its recurrent has {dt} s; they must be equal."
        )


def module_kwargs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `PolarV1` that make it the reference's model.

    Raises:
      ConfigError: a section or a value has no place here.
    """
    convnet, modulator, recurrent, _ = (_section(config, name) for name in KNOWN)
    moves = behaves(config)
    defaults = {
        "dt": modulator.get("dt", 1 / 240),
        "lambda_fix": 10.0,
        "lambda_sac": 40.0,
        "alpha_fast": 0.74,
        "alpha_slow": 0.95,
    }
    constants = {name: float(recurrent.get(name, value)) for name, value in defaults.items()}
    if moves:
        _check_gaze(modulator, constants["dt"])
    return {
        "dt": constants["dt"],
        "pixels_per_degree": 1.0,
        "n_levels": int(convnet.get("n_pyramid_levels", 4)),
        "n_pairs": int(convnet.get("n_pairs", 16)),
        "kernel_size": int(convnet.get("kernel_size", 7)),
        "filters": "separable",
        "pyramid_normalized": False,
        "pose_floor": 1e-6,
        "gaze": "raw" if moves else "none",
        "code_width": int(modulator.get("beh_dim", 128)),
        "retinal_slip": False,
        # the reference forgets the 2 pi of cycles/pixel
        "max_velocity": 50.0 / (2 * np.pi),
        "dynamics": "framewise" if moves else "none",
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
