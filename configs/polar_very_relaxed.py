"""Polar-V1 that starts from very relaxed constants: tau 500 ms in fixation, 100 ms in saccades; alpha 0.85 and 0.85.

The quick form has no running averages, so that alpha says nothing there.

python train.py --config configs/polar_very_relaxed.py:quick
"""

from ml_collections import ConfigDict

from configs import polar


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py with very relaxed constants."""
    config = polar.get_config(variant)
    config.model.kwargs.fixation_rate = 2.0
    config.model.kwargs.saccade_rate = 10.0
    config.model.kwargs.alpha_fast = 0.85
    config.model.kwargs.alpha_slow = 0.85
    return config
