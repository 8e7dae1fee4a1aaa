"""Polar-V1 that starts from relaxed constants: tau 200 ms in fixation, 50 ms in saccades; alpha 0.80 and 0.90.

The quick form has no running averages, so that alpha says nothing there.

python train.py --config configs/polar_relaxed.py:quick
"""

from ml_collections import ConfigDict

from configs import polar


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py with relaxed constants."""
    config = polar.get_config(variant)
    config.model.kwargs.fixation_rate = 5.0
    config.model.kwargs.saccade_rate = 20.0
    config.model.kwargs.alpha_fast = 0.80
    config.model.kwargs.alpha_slow = 0.90
    return config
