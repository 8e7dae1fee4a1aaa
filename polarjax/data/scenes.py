"""Luminance scenes from the photographs that the scikit-image and scikit-learn wheels carry. Nothing is downloaded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

SCENE_SIZE = 385  # odd, so that the centre of a scene is a pixel
MEAN_LUMINANCE = 127.0
CONTRAST = 48.0  # standard deviation of a scene, grey levels
LUMINANCE_WEIGHTS = (0.2125, 0.7154, 0.0721)  # Rec. 709

# Whole photographs belong to a tier (train, validation, test), so no patch of a test photograph is ever trained on.
TIERS = (
    (
        "astronaut",
        "brick",
        "camera",
        "grass",
        "gravel",
        "immunohistochemistry",
        "moon",
        "rocket",
        "stereo_motorcycle",
    ),
    ("coins", "flower.jpg"),
    ("chelsea", "china.jpg", "coffee"),
)


class Scenes(NamedTuple):
    """Scenes of one size with the photograph and the tier that each belongs to.

    Attributes:
      luminance: grey levels, mean near 127 and standard deviation near 48 in every scene.
      photograph: name of the photograph that a scene was cut from.
      tier: 0 train, 1 validation, 2 test; a photograph has one tier.
    """

    luminance: UInt8[np.ndarray, "F H W"]
    photograph: tuple[str, ...]
    tier: UInt8[np.ndarray, " F"]


def load_photograph(name: str) -> Float[np.ndarray, "H W"]:
    """Luminance of one photograph in its own size, grey levels 0 to 255.

    Args:
      name: a function of `skimage.data` whose file is in the wheel, or a file name of `sklearn.datasets`.
    """
    if name.endswith(".jpg"):
        from sklearn.datasets import load_sample_image

        image = load_sample_image(name)
    else:
        from skimage import data

        image = getattr(data, name)()
        image = image[0] if isinstance(image, tuple) else image
    image = np.asarray(image, np.float64)
    return image @ np.array(LUMINANCE_WEIGHTS) if image.ndim == 3 else image


def normalise_contrast(scene: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Shifts and scales grey levels to the common mean and contrast; the few values beyond 0..255 are clipped."""
    scaled = (scene - scene.mean()) * (CONTRAST / max(scene.std(), 1.0)) + MEAN_LUMINANCE
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def cut_scenes(photograph: Float[np.ndarray, "H W"], size: int = SCENE_SIZE) -> UInt8[np.ndarray, "F S S"]:
    """Cuts square scenes from the corners of a photograph, enlarged first where its short side is below `size`.

    Scenes that overlap are turned by quarter turns, so that no patch is shown twice the same way round.

    Args:
      photograph: luminance, grey levels.
      size: S, pixels.

    Returns:
      One to four scenes of normalised contrast.
    """
    height, width = photograph.shape
    if min(height, width) < size:
        from skimage.transform import resize

        scale = size / min(height, width)
        shape = (max(size, round(height * scale)), max(size, round(width * scale)))
        photograph = resize(photograph, shape, order=3, mode="reflect", anti_aliasing=False)
    tops, lefts = (sorted({0, extent - size} if extent > 1.15 * size else {0}) for extent in photograph.shape)
    corners = [(top, left) for top in tops for left in lefts]
    crops = [photograph[top : top + size, left : left + size] for top, left in corners]
    return np.stack([normalise_contrast(np.rot90(crop, turn)) for turn, crop in enumerate(crops)])


def load_scenes() -> Scenes:
    """Cuts every photograph of the three tiers into scenes, in a fixed order."""
    luminance, photograph, tier = [], [], []
    for index, names in enumerate(TIERS):
        for name in names:
            cut = cut_scenes(load_photograph(name))
            luminance.append(cut)
            photograph += [name] * len(cut)
            tier += [index] * len(cut)
    return Scenes(np.concatenate(luminance), tuple(photograph), np.array(tier, np.uint8))
