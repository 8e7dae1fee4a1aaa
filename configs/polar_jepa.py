"""Polar-V1 that also learns to predict what the next eye movements bring: spikes and self-supervision together.

python train.py --config configs/polar_jepa.py:quick
"""

from ml_collections import ConfigDict

from configs import polar

HEAD = {
    "width": 256,
    "deltas": (5,),
    "predictor_size": 3,
    "hides_masked": True,
    "normalizes_prediction": True,
    "sees_gaze": True,
    "mask_ratio": 0.5,
    "target": "ema",
    "target_decay": 0.996,
}
WEIGHTS = {"jepa": 0.5, "coding_rate": 0.05, "variance_covariance": 0.0, "sliced_gaussian": 0.0}


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py with the auxiliary objective, at the documents' weight."""
    return add_objective(polar.get_config(variant), variant)


def add_objective(config: ConfigDict, variant: str) -> ConfigDict:
    """Adds the head, its losses and its group of parameters."""
    config.model.jepa = ConfigDict(HEAD)
    config.loss.weights.update(WEIGHTS)
    config.loss.schedules.update(dict.fromkeys(WEIGHTS))
    config.optim.groups.jepa = ConfigDict({"learning_rate": 1.5e-3, "weight_decay": 5e-5})
    if variant == "quick":
        config.model.jepa.width = 32
        config.optim.groups.jepa.learning_rate = 3e-3
    return config
