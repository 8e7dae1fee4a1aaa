"""Polar-V1 without gaze and without memory that learns from spikes and from predicting its own later summaries.

Against configs/polar_minimal.py it says what the auxiliary objective adds alone, as in the documents' version.

python train.py --config configs/polar_jepa_only.py:quick
"""

from ml_collections import ConfigDict

from configs import polar_jepa, polar_minimal


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar_minimal.py with the auxiliary objective, whose predictor has no gaze to see."""
    config = polar_jepa.add_objective(polar_minimal.get_config(variant), variant)
    config.model.jepa.sees_gaze = False
    return config
