"""The baseline: a residual network in space and time with a convolutional GRU, on the data and budget of Polar-V1.

python train.py --config configs/resnet_convgru.py                  full size: 128 and 256 channels, 128 hidden
python train.py --config configs/resnet_convgru.py:learned          with 4 learned temporal filters before it
python train.py --config configs/resnet_convgru.py:quick            made small, for 2 CPU cores
python train.py --config configs/resnet_convgru.py:learned-quick    both
"""

from ml_collections import ConfigDict

from configs import polar

VARIANTS = ("", "quick", "learned", "learned-quick")
# Degrees from one place of the last map to the next: a stride of 2 and a pooling by 2 of the virtual V1's 37 pixels a
# degree. For sessions of another scale, set the bounds and initial_width in degrees.
PLACE = 4 / 37


def get_config(variant: str = "") -> ConfigDict:
    """Returns the documented size and recipe, with the learned frontend, or made small."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; allowed are {', '.join(map(repr, VARIANTS))}")
    learned, quick = "learned" in variant, "quick" in variant
    config = polar.get_config("quick" if quick else "")
    config.model = ConfigDict({"name": "resnet_convgru", "kwargs": LEARNED if learned else PLAIN})
    config.optim.groups = ConfigDict(
        {
            "core": {"learning_rate": 2e-3, "weight_decay": 5e-5},
            "readout": {"learning_rate": 1e-3, "weight_decay": 5e-5},
        }
    )
    config.optim.clip_norm = 10.0
    config.optim.warmup_steps = 10 * 1024
    # Widths of the readout: at most 10 places of the map that it reads, falling to 1.5 in the first half of the run.
    config.optim.bounds.width_deg = (0.001 * PLACE, 10 * PLACE, 1.5 * PLACE, 0.5)
    config.loss.weights.feature_l1 = 1e-7
    config.model.kwargs.initial_width = 10 * PLACE
    return make_quick(config) if quick else config


PLAIN = {
    "channels": (128, 256),
    "kernel_sizes": (9, 5),
    "strides": (2, 1),
    "pools": (0, 2),
    "dilations": (1, 1),
    "reductions": (1, 8),
    "hidden": 128,
    "dropout": 0.1,
    "gaze": "scaled",
    "code_width": 32,
}
LEARNED = PLAIN | {
    "frontend_filters": 4,
    "channels": (8, 256, 128),
    "kernel_sizes": (5, 5, 3),
    "strides": (2, 1, 1),
    "pools": (0, 2, 1),
    "dilations": (1, 1, 2),
    "reductions": (1, 8, 16),
}


def make_quick(config: ConfigDict) -> ConfigDict:
    """Makes a config small enough for two CPU cores: pooled early, few channels.

    The rates are for some hundred steps and not 102,400, the readout's that of configs/polar.py:quick. Widths start
    below where the documents' bound on them ends, and have none.
    """
    kwargs = config.model.kwargs
    kwargs.update(hidden=16, dropout=0.0, initial_width=0.06)
    if "frontend_filters" in kwargs:
        config.data.burn_in = 16
        kwargs.update(frontend_filters=4, channels=(8, 16, 16), pools=(2, 0, 0), reductions=(2, 1, 1))
    else:
        kwargs.update(channels=(8, 16), kernel_sizes=(7, 3), pools=(2, 0), reductions=(2, 1))
    with config.ignore_type():
        config.optim.bounds.width_deg = None
    config.optim.groups.core.learning_rate = 8e-3
    config.optim.groups.readout.learning_rate = 1.5e-2
    config.optim.warmup_steps = 50
    return config
