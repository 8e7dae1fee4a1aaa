"""Polar-V1 without gaze and without memory: filters, polar decomposition, summaries over time, normalised readout.

What the dynamics and the gaze code add is the difference to configs/polar.py.

python train.py --config configs/polar_minimal.py:quick
"""

from ml_collections import ConfigDict

from configs import polar


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py without dynamics and gaze."""
    config = polar.get_config(variant)
    config.model.kwargs.update(gaze="none", dynamics="none", saccade_gate="learned", gaze_gain=False)
    with config.ignore_type():
        config.optim.groups.lambda_fix = config.optim.groups.lambda_sac = None
    return config
