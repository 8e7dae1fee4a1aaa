"""The reference's models: their YAML and their states."""

FULL = {
    "polar_v1": (15, 0.008333),
    "polar_v1_relaxed": (15, 0.008333),
    "polar_v1_behavior_only": (7, 0.004166667),
}
STILL = ("polar_v1_minimal", "polar_v1_jepa_only")


def config_of(name):
    """Returns the reference's YAML; constants in it are where learning starts, the state holds what was learned."""
    kernel_size, dt = FULL.get(name, (7, 0.004166667))
    recurrent = {
        "dt": dt,
        "alpha_fast": 0.74,
        "alpha_slow": 0.95,
        "base_freq_cpx": 0.15,
        "use_jepa": "jepa" in name,
    }
    config = {
        "model_type": "v1multi",
        "name": name,
        "output_activation": "none",
        "lambda_jepa": 0.5,
        "convnet": {
            "type": "polar",
            "params": {"n_pyramid_levels": 4, "n_pairs": 4, "kernel_size": kernel_size},
        },
        "modulator": {"type": "none"},
        "recurrent": {"type": "polar", "params": {**recurrent, "use_behavior": name in FULL}},
        "readout": {
            "type": "polar",
            "params": {"n_units": 8, "bias": True, "initial_std": 5.0, "initial_mean_scale": 0.1},
        },
    }
    if name in FULL:
        fourier = {"use_pos_fourier": True, "Kpos": 2, "init_pos_freq_cpx": 0.015625}
        config["modulator"] = {"type": "polar", "params": {"beh_dim": 16, "dt": dt, **fourier}}
        config["recurrent"]["params"] |= {"lambda_fix": 10.0, "lambda_sac": 40.0, "learnable_alphas": True}
    else:
        config["recurrent"]["params"] |= {"proj_dim": 12, "tau": 0.996}
    return config


def state_of(arrays, prefix="p."):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
