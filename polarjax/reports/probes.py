"""Linear probes: what can be read from the frozen code of the last frame of a segment, and from an untrained one.

The gaze is the displacement of the eye in the frames between context and target, in degrees. The scene is the window
itself, averaged over 5 x 5 places: which image is shown cannot be asked of a linear classifier, because the images of
the test tier need not occur in training, and sessions that store windows do not say which image a window is of.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from polarjax.core import Batch, Data, PyTree
from polarjax.engine.state import TrainState
from polarjax.models.jepa_codes import frozen_codes
from polarjax.models.jepa_objective import Objective
from polarjax.ops.coarse_grid import coarse_grid
from polarjax.ops.ridge import Scale, explained_variance, ridge

FITTED, TESTED = 640, 256
"""Segments of the training and of the evaluated tier, at most about: each costs a forward pass of both models."""
HELD_OUT = 0.2
PENALTIES = tuple(10.0**exponent for exponent in range(-7, 2))
SCENE_GRID = 5
TRAINING_TIER = 0


class Segments(NamedTuple):
    """n segments: what is known at their last frame, and what is to be read from it.

    Attributes:
      features: by name, [n, d].
      targets: by name, [n, K].
      session: index of the session.
      start: first frame on its time line.
    """

    features: dict[str, Float[np.ndarray, "n _"]]
    targets: dict[str, Float[np.ndarray, "n _"]]
    session: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]

    def rows(self, chosen: Int[np.ndarray, " m"]) -> Segments:
        """Returns some of them."""
        return jax.tree.map(lambda values: values[chosen], self)


def probe_run(
    objective: Objective, states: Mapping[str, TrainState], data: Data, config: Any, tier: int
) -> dict[str, Any] | None:
    """Fits probes on segments of the training tier and scores them on another tier.

    Args:
      states: trained and untrained.
      config: of the run.

    Returns:
      JSON values: delta_frames; segments, how many fit the weights, choose the penalty, and are scored; and r2
      {features: {target: {state: R^2}}}. None for the training tier, on which probes are fitted, and for one that has
      no segments.
    """
    if tier == TRAINING_TIER:
        return None
    rows = config.data.batch_size // config.optim.micro_batches
    read = jax.jit(lambda state, resident, request: _read(objective, state, data.fetch(resident, request)))
    most = -(-TESTED // rows)
    training = gather(read, states, data, training_requests(data, rows))
    tested = gather(read, states, data, itertools.islice(data.evaluation(tier, rows), most))
    if not training or not tested:
        return None
    scores: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for name, segments in training.items():
        fitted, held = hold_out(segments, config.data.burn_in + config.data.predicted)
        found = score_probes(segments.rows(fitted), segments.rows(held), tested[name])
        for (features, target), value in found.items():
            scores.setdefault(features, {}).setdefault(target, {})[name] = value
        counts = {"fitted": len(fitted), "held_out": len(held), "tested": len(tested[name].start)}
    return {"delta_frames": max(objective.options.deltas), "segments": counts, "r2": scores}


def training_requests(data: Data, rows: int) -> Iterator[PyTree]:
    """Yields about `FITTED` segments of the training tier, so many rows at a time, as the first steps of training."""
    number = 0
    for step in itertools.count():
        request = data.train(step)
        for first in range(0, len(request["start"]), rows):
            if number >= FITTED:
                return
            number += rows
            yield {name: values[first : first + rows] for name, values in request.items()}


def gather(read: Any, states: Mapping[str, TrainState], data: Data, requests: Iterable[PyTree]) -> dict:
    """Reads segments with every state: {state: Segments}; {} where there are none.

    Segments whose last frame is not counted are left out: they fill up a batch or end after their trial.
    """
    parts: dict[str, list[Segments]] = {}
    for request in requests:
        counted = np.flatnonzero(request["counted"][:, -1] > 0)
        session = np.arange(len(request["start"])) % len(data.sessions)
        for name, state in states.items():
            features, targets = jax.device_get(read(state, data.resident, request))
            segments = Segments(features, targets, session, request["start"])
            parts.setdefault(name, []).append(segments.rows(counted))
    joined = {
        name: jax.tree.map(lambda *values: np.concatenate(values), *part) for name, part in parts.items()
    }
    return joined if all(len(segments.start) for segments in joined.values()) else {}


def hold_out(segments: Segments, length: int) -> tuple[Int[np.ndarray, " fitted"], Int[np.ndarray, " held"]]:
    """Returns which training segments fit the weights and which choose the penalty: the last fifth of every session.

    Neighbouring segments share frames, so those drawn at random would favour penalties that are too small; held-out
    segments begin after the last frame that is fitted, and no segment is in both.
    """
    fitted, held = [], []
    for index in np.unique(segments.session):
        place = np.flatnonzero(segments.session == index)
        place = place[np.unique(segments.start[place], return_index=True)[1]]
        number = max(round((1 - HELD_OUT) * len(place)), 1)
        after = segments.start[place] >= segments.start[place[number - 1]] + length
        fitted.append(place[:number])
        held.append(place[after])
    return np.concatenate(fitted), np.concatenate(held)


def score_probes(fitted: Segments, held: Segments, tested: Segments) -> dict[tuple[str, str], float]:
    """Returns R^2 of every (features, target) on the tested segments, from weights that know nothing of them.

    The penalty is the best one of the held-out training segments; the largest where there are none.
    """
    scores = {}
    for name, features in fitted.features.items():
        scale = Scale.of(features)
        x, others, new = (scale.apply(part.features[name]) for part in (fitted, held, tested))
        means = {target: y.mean(axis=0, dtype=np.float64) for target, y in fitted.targets.items()}
        y = np.concatenate([fitted.targets[target] - mean[None] for target, mean in means.items()], axis=1)
        path, first = ridge(x, y, PENALTIES), 0
        for target, mean in means.items():
            weights = path[:, :, first : first + len(mean)]
            first += len(mean)
            known = [explained_variance(held.targets[target], others @ w + mean[None], mean) for w in weights]
            best = int(np.nanargmax(known)) if np.isfinite(known).any() else -1
            prediction = new @ weights[best] + mean[None]
            scores[name, target] = explained_variance(tested.targets[target], prediction, mean)
    return scores


def _read(objective: Objective, state: TrainState, batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns features and targets of the last frame of each segment."""
    last, delta = objective.last, max(objective.options.deltas)
    moved = batch.gaze[:, last] - batch.gaze[:, last - delta]
    scene = coarse_grid(batch.stimulus[:, last], SCENE_GRID)
    targets = {
        "gaze_dx": moved[:, :1],
        "gaze_dy": moved[:, 1:],
        "scene": scene.reshape(len(scene), -1),
    }
    return frozen_codes(objective, state.params, state.model_state, batch), targets
