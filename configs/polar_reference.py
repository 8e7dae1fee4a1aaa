"""The model of configs/polar.py with the options of the PyTorch reference, for comparison at the same budget.

All filters of a kind are copies of one, every frame is updated alone, no summary carries phase, and the gaze features
are raw. Readout, link and standardization stay ours: with the reference's own, initial log rates have a standard
deviation near 1000, the loss starts at infinity and no step is taken.

python train.py --config configs/polar_reference.py:quick
"""

import math

from ml_collections import ConfigDict

from configs import polar

SUMMARIES = ("last", "fast", "slow", "derivative", "energy")


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py with the reference's core."""
    config = polar.get_config(variant)
    kwargs = config.model.kwargs
    kwargs.update(filters="separable", pyramid_normalized=False, pose_floor=1e-6)
    kwargs.update(gaze="raw", retinal_slip=False, max_velocity=50 / (2 * math.pi))
    kwargs.update(dynamics="framewise", summaries=SUMMARIES, bias_correction=False)
    kwargs.update(saccade_gate="learned", gaze_gain=False, normalization=False)
    with config.ignore_type():
        for name in polar.CONSTANTS:
            config.optim.groups[name] = config.optim.groups.lambda_fix.copy_and_resolve_references()
    return config
