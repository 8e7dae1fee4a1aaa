"""Models of macaque V1 under flashed images (docs/macaque.md); sessions made by polarjax.data.convert image_counts.

python train.py --config configs/macaque_v1.py --config.data.sessions=DIR --workdir W
python train.py --config configs/macaque_v1.py:reference ..         Polar-V1 with the options of the PyTorch reference
python train.py --config configs/macaque_v1.py:resnet_convgru ..    the residual baseline
"""

from ml_collections import ConfigDict

from configs import polar, polar_reference, resnet_convgru

VARIANTS = ("", "reference", "resnet_convgru")


def get_config(variant: str = "") -> ConfigDict:
    """Returns configs/polar.py for images that rest under an eye that rests: a frame says all, time nothing.

    What there is to learn from is some 300 images of few movies, so the filters stay Gabors and only the readouts are
    trained, shortly and with strong decay. Every unit has two Gaussians, centre and surround, 1.5 and 6 pixels wide at
    the start, on the centre of the images.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; allowed are {', '.join(map(repr, VARIANTS))}")
    config = polar.get_config()
    config.data.update(burn_in=0, predicted=1, batch_size=48)
    config.model.kwargs.update(n_levels=4, n_pairs=16, kernel_size=9, finest_stride=2, base_frequency=0.25)
    config.model.kwargs.update(gaze="none", dynamics="none", summaries=("last", "even", "odd"))
    config.model.kwargs.update(initial_width=0.09375, surround=4.0, normalization=False)
    with config.ignore_type():
        for name in ("core", *polar.CONSTANTS):
            config.optim.groups[name] = None
    config.optim.groups.readout.update(learning_rate=5e-3, weight_decay=3.0)
    config.optim.warmup_steps = 20
    config.train.update(num_steps=400, log_every=50, eval_every=200, save_every=400, floor_steps=400)
    if variant == "reference":
        return use_reference(config)
    return use_resnet(config) if variant == "resnet_convgru" else config


def use_reference(config: ConfigDict) -> ConfigDict:
    """Takes the reference's filters and summaries; its filters start at random, so they are trained."""
    config.model.kwargs.update(filters="separable", pyramid_normalized=False, pose_floor=1e-6)
    config.model.kwargs.update(summaries=polar_reference.SUMMARIES, bias_correction=False)
    with config.ignore_type():
        config.optim.groups.core = ConfigDict({"learning_rate": 3e-3, "weight_decay": 5e-5})
    return config


def use_resnet(config: ConfigDict) -> ConfigDict:
    """Takes the residual baseline of two cores, all of it trained, with the readout's decay."""
    config.model = resnet_convgru.get_config("quick").model
    config.model.kwargs.update(gaze="none", initial_width=0.09375)
    config.data.burn_in = 8  # frames of the image under which the GRU settles
    core = ConfigDict({"learning_rate": 3e-3, "weight_decay": 5e-5})
    config.optim.groups = ConfigDict({"core": core, "readout": config.optim.groups.readout})
    return config
