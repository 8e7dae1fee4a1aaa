"""Polar-V1 trained without spikes: its core predicts what the next eye movements bring.

python train.py --config configs/polar_jepa_pretrain.py:quick --workdir runs/pretrained
python train.py --config configs/polar.py:quick --config.init_from=runs/pretrained --workdir runs/finetuned
"""

from ml_collections import ConfigDict

from configs import polar, polar_jepa


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py with self-supervision in place of spikes; readouts stay as they are drawn."""
    config = polar_jepa.add_objective(polar.get_config(variant), variant)
    config.data.ignore_spikes = True
    config.loss.weights.update(poisson=0.0, jepa=1.0)
    with config.ignore_type():
        config.optim.groups.readout = None
    config.train.update(keep_best=0, floor_steps=0)
    if variant == "quick":
        config.data.update(burn_in=16, predicted=8)  # one frame a segment is predicted, whatever its length
    return config
