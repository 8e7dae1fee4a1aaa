"""Filters and places that a model learned, found in its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from polarjax.core import PyTree


class Places(NamedTuple):
    """Where the units of every session look, padded to N units.

    Attributes:
      mean: degrees from the centre of the window, x right and y up.
      width: standard deviations along the two axes, degrees.
      angle: of the first axis, rad.
    """

    mean: Float[np.ndarray, "S N 2"]
    width: Float[np.ndarray, "S N 2"]
    angle: Float[np.ndarray, "S N"]


def find_filters(params: PyTree) -> tuple[Float[np.ndarray, "k k C M"], Float[np.ndarray, "k k C M"]] | None:
    """Returns the even and the odd filters of a quadrature bank; None for a model without one.

    A separable bank is multiplied out: one spatial filter a channel, mixed into M maps.
    """
    bank = next(_branches(params, lambda branch: {"even", "odd"} <= set(branch)), None)
    return None if bank is None else (_full_filters(bank["even"]), _full_filters(bank["odd"]))


def find_places(params: PyTree) -> Places | None:
    """Returns where the units look; None where the readout has no single Gaussian a unit in degrees."""

    def is_readout(branch: Mapping[str, Any]) -> bool:
        return {"mean", "log_width", "angle"} <= set(branch) and np.ndim(branch["mean"]) == 3

    readout = next(_branches(params, is_readout), None)
    if readout is None:
        return None
    mean, log_width, angle = (np.asarray(readout[name]) for name in ("mean", "log_width", "angle"))
    return Places(mean, np.exp(log_width), angle)


def _full_filters(leaves: Mapping[str, Any]) -> Float[np.ndarray, "k k C M"]:
    if "kernel" in leaves:
        return np.asarray(leaves["kernel"])
    spatial, mixing = np.asarray(leaves["spatial"]["kernel"]), np.asarray(leaves["mixing"]["kernel"])
    return spatial[:, :, 0, :, None] * mixing[None, None]


def _branches(tree: PyTree, matches: Callable[[Mapping[str, Any]], bool]) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, Mapping):
        if matches(tree):
            yield tree
        for branch in tree.values():
            yield from _branches(branch, matches)
