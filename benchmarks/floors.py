"""The least time that a train step can take: operations and bytes of the model, over what the machine can do.

Counted from the model's formulas and sizes, for any order of the sums. XLA's own analysis counts a loop's body once.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from polarjax.models.polar_v1 import PolarV1
from polarjax.models.readout import level_shapes

AVERAGED = ("last", "fast", "slow", "derivative")
# Additions, multiplications, comparisons and roots of one pixel of one pair.
AMPLITUDE, POSE, ENERGY, SIGNED = 5, 3, 15, 2
RELAX, ROTATE = 3, 6
DRIVE, CORRECT, NORMALIZE = 6, 6, 7
TWO_AVERAGES = 4
PRODUCT_SIZE, COPY_BYTES, REPEATS = 3072, 2**28, 5


class Work(NamedTuple):
    """Operations and bytes of a train step."""

    flops: float
    bytes: float


class Peaks(NamedTuple):
    """Operations and bytes a second."""

    flops: float
    bytes: float


def count_work(model: PolarV1, *, n_parameters: int, batch: int, frames: int, predicted: int) -> Work:
    """Counts a train step on one input channel: forward, and what the gradient needs once.

    With P pixels in all levels, M pairs, N units, k the kernel size, T frames of which n are predicted:

        filters   dense      2 k^2 2M P T, twice: forward, and the kernels' gradient (images need none)
                  separable  2 k^2 2 P T twice, and 2 2M P T thrice for the mixing of channels
        maps      operations a pixel and pair by formula, forward once and backward twice: amplitude (and relaxation)
                  of all frames; pose of all frames where it is remembered, else of those that the summaries show
        pooling   2 N P M thrice, for every map that is pooled: even, odd and energy of predicted frames, and either
                  the amplitude of all frames or its last, fast, slow and derivative of predicted ones
        mixing    2 N L D thrice, for every predicted frame
        bytes     4 a number: stimulus and gaze twice, counts and masks once; parameters and both moments of AdamW
                  read and written, the gradient once; memories (a, z) of every frame written and read again

    Pyramid, gaze encoder and the optimizer's arithmetic are left out: less than a hundredth.

    """
    height, width, _ = model.frame_shape
    pairs, n_units, names = model.n_pairs, sum(model.n_units), model.summaries
    pixels = sum(rows * columns for rows, columns in level_shapes((height, width), model.level_strides))
    maps = pixels * pairs
    remembers, moves = model.dynamics == "recurrent", model.dynamics != "none"
    filters = 2 * model.kernel_size**2 * 2 * pixels * frames * 2
    if model.filters == "dense":
        filters *= pairs
    else:
        filters += 3 * 2 * 2 * maps * frames
    shown = frames if remembers else min(frames, 2 * predicted, predicted + 2)
    a_frame = AMPLITUDE + (DRIVE if remembers else RELAX if moves else 0)
    a_pose = POSE + (ROTATE if moves else 0) + (CORRECT if remembers else 0)
    each = a_frame * frames + a_pose * shown
    if remembers:
        each += NORMALIZE * min(frames, 2 * predicted, predicted + 2)
    each += predicted * (ENERGY * ("energy" in names) + SIGNED * len({"even", "odd"} & set(names)) / 2)
    a_pooling = 2 * n_units * 3
    n_averaged = len(set(AVERAGED) & set(names))
    of_maps = 3 * TWO_AVERAGES * frames + a_pooling * n_averaged * predicted
    pooling = min(of_maps, a_pooling * frames) if n_averaged else 0
    pooling += a_pooling * (len(names) - n_averaged) * predicted
    mixing = 3 * 2 * n_units * model.n_levels * len(names) * pairs * predicted
    flops = batch * (filters + maps * (3 * each + pooling) + mixing)
    numbers = 2 * frames * (height * width + 2) + 2 * predicted * n_units
    numbers += 2 * 3 * maps * frames if remembers else 0
    return Work(float(flops), float(4 * (batch * numbers + 7 * n_parameters)))


def measure_peaks(product_size: int = PRODUCT_SIZE, copy_bytes: int = COPY_BYTES) -> Peaks:
    """Measures a product of large float32 matrices and a copy, each on all cores; the best of some."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((product_size,) * 2, np.float32) for _ in range(2))
    out = np.empty_like(left)
    product = min(_seconds(lambda: np.matmul(left, right, out=out)) for _ in range(REPEATS))
    cores = os.cpu_count() or 1
    parts = [np.ones(copy_bytes // cores, np.uint8) for _ in range(cores)]
    copies = [np.zeros_like(part) for part in parts]
    with ThreadPoolExecutor(cores) as pool:
        copy = min(_seconds(lambda: list(pool.map(np.copyto, copies, parts))) for _ in range(REPEATS))
    return Peaks(2 * product_size**3 / product, 2 * sum(part.nbytes for part in parts) / copy)


def floor_seconds(work: Work, peaks: Peaks) -> float:
    """Returns the time below which no order of the sums can get."""
    return max(work.flops / peaks.flops, work.bytes / peaks.bytes)


def _seconds(compute) -> float:
    begin = time.perf_counter()
    compute()
    return time.perf_counter() - begin
