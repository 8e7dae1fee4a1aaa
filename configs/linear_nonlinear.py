"""The floor alone: one spatio-temporal filter of rank 2 a unit, then a softplus.

Every other config with spikes trains it beside its model, for config.train.floor_steps steps: with one filter a unit it
needs few, and a rate and a warm-up of its own.

python train.py --config configs/linear_nonlinear.py:quick
"""

from ml_collections import ConfigDict

from configs import polar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the linear-nonlinear model on the data of configs/polar.py."""
    config = polar.get_config(variant)
    kwargs = {"n_lags": config.data.burn_in + 1, "rank": 2}
    config.model = ConfigDict({"name": "linear_nonlinear", "kwargs": kwargs})
    config.optim.groups = ConfigDict({"readout": {"learning_rate": 1e-2, "weight_decay": 0.0}})
    config.train.num_steps = config.train.floor_steps
    config.optim.warmup_steps = config.train.num_steps // 20
    config.train.floor_steps = 0
    return config
