"""Polar-V1 whose gaze code acts on the dynamics alone, without a self-supervised objective.

The reference has two versions of its model at 240 Hz: with the auxiliary objective, and this one. Their model and
their constants are the same (10/s and 40/s, alpha 0.74 and 0.95), and the spikes are all that is learned from here.
So the config is configs/polar.py with what makes it so written down: no value added to that file can undo it.

python train.py --config configs/polar_behavior_only.py:quick
"""

from ml_collections import ConfigDict

from configs import polar


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py, held to behaviour in the dynamics, of any size, and to the Poisson loss."""
    config = polar.get_config(variant)
    config.model.kwargs.update(gaze="scaled", dynamics="recurrent")
    config.model.kwargs.update(saccade_gate="learned", pose_memory=True, gaze_gain=False)
    config.loss.weights.update(poisson=1.0, zero_inflated_poisson=0.0)
    return config
