"""Which widths and decay of Polar-V1 for a movie that is left out: chosen by the other movies alone.

Every setting's model pools its features where its units start; a readout of them is trained with the loss, the
optimizer and the steps of the config, without the left-out movie and one of the others, which it predicts. The setting
with the highest correlation over all the others is that of the left-out movie. Places and widths do not move and the
features' statistics are those of all images trained on: a choice takes minutes where the models would take days.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt8

from polarjax import losses
from polarjax.data.convert import PIXELS_PER_DEGREE, RATE_HZ
from polarjax.data.image_counts import MISSING
from polarjax.engine.optim import OptimConfig, make_optimizer
from polarjax.models.polar_v1 import PolarV1
from polarjax.models.readout import LOG_RATE_FLOOR, UNIT_SOFTPLUS

AT_ONCE = 15


class Setting(NamedTuple):
    """What is chosen.

    Attributes:
      initial_width: of the first Gaussian, degrees.
      surround: how many times as wide the second is; None for one alone.
      weight_decay: of the readouts' kernels.
    """

    initial_width: float
    surround: float | None
    weight_decay: float

    def of(self, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """Returns a copy of the config with this setting."""
        config = ml_collections.ConfigDict(config.to_dict())
        with config.ignore_type():
            config.model.kwargs.update(initial_width=self.initial_width, surround=self.surround)
        config.optim.groups.readout.weight_decay = self.weight_decay
        return config.lock()


WIDTHS, SURROUNDS, DECAYS = (0.09375, 0.1875, 0.375), (None, 2.0, 4.0), (1.0, 3.0, 10.0)
SETTINGS = tuple(itertools.starmap(Setting, itertools.product(WIDTHS, SURROUNDS, DECAYS)))


def choose(
    config: ml_collections.ConfigDict,
    images: UInt8[np.ndarray, "I H W"],
    counts: UInt8[np.ndarray, "I R N"],
    movie: Int[np.ndarray, " I"],
    settings: Sequence[Setting],
) -> dict[int, Setting]:
    """Returns the setting of every movie, chosen by the others; arguments as in `score`."""
    best = score(config, images, counts, movie, settings).argmax(0).tolist()
    return {m: settings[k] for m, k in zip(np.unique(movie).tolist(), best, strict=True)}


def score(
    config: ml_collections.ConfigDict,
    images: UInt8[np.ndarray, "I H W"],
    counts: UInt8[np.ndarray, "I R N"],
    movie: Int[np.ndarray, " I"],
    settings: Sequence[Setting],
) -> Float[np.ndarray, "settings movies"]:
    """Returns how well each setting predicts all movies but one, by readouts that saw neither.

    Args:
      config: all that is not chosen: filters, summaries, learning rate, steps, batch.
      counts: of every presentation; MISSING where there is none.
      movie: which movie an image belongs to.

    Returns:
      For each movie that is left out, the median correlation over the images of the others.
    """
    predict = jax.jit(_make_predict(config, counts), static_argnames="weight_decay")
    pairs = list(itertools.combinations(np.unique(movie).tolist(), 2))
    trained = jnp.asarray([~np.isin(movie, pair) for pair in pairs])
    scores = []
    for setting in settings:
        features = pooled_features(setting.of(config), images)
        predicted = predict(features, trained, weight_decay=setting.weight_decay)
        scores.append(_scores(np.asarray(predicted), pairs, mean_counts(counts), movie))
    return np.stack(scores)


def correlation(
    predicted: Float[np.ndarray, "I N"], observed: Float[np.ndarray, "I N"]
) -> Float[np.ndarray, " N"]:
    """Pearson's correlation over images, a unit."""
    x, y = predicted - predicted.mean(0), observed - observed.mean(0)
    return (x * y).sum(0) / np.maximum(np.sqrt((x**2).sum(0) * (y**2).sum(0)), 1e-12)


def mean_counts(counts: UInt8[np.ndarray, "I R N"]) -> Float[np.ndarray, "I N"]:
    """Mean over the presentations of an image."""
    return np.nanmean(np.where(counts == MISSING, np.nan, counts.astype(np.float64)), axis=1)


def _scores(
    predicted: Float[np.ndarray, "K I N"],
    pairs: list[tuple[int, int]],
    observed: Float[np.ndarray, "I N"],
    movie: Int[np.ndarray, " I"],
) -> np.ndarray:
    """Median correlation over the images of all other movies, for every left-out movie.

    Args:
      predicted: by a readout for every pair of movies that was trained without both.
    """
    scores = []
    for left_out in np.unique(movie):
        others = np.zeros_like(observed)
        for pair, prediction in zip(pairs, predicted, strict=True):
            if left_out in pair:
                (other,) = set(pair) - {left_out}
                others[movie == other] = prediction[movie == other]
        rows = movie != left_out
        scores.append(np.median(correlation(others[rows], observed[rows])))
    return np.array(scores)


def pooled_features(
    config: ml_collections.ConfigDict, images: UInt8[np.ndarray, "I H W"]
) -> Float[Array, "I L F"]:
    """Returns what a unit on the centre of the images pools of each, before anything is trained."""
    shape = (*images.shape[1:], 1)
    kwargs: Any = {
        key: tuple(x) if isinstance(x, list) else x for key, x in config.model.kwargs.to_dict().items()
    }
    model: Any = PolarV1((1,), shape, 1 / RATE_HZ, PIXELS_PER_DEGREE, **kwargs)
    stimulus = (jnp.asarray(images, jnp.float32)[:, None, ..., None] - 127) / 255

    def pool(rng: Array) -> Array:
        variables = model.init(rng, stimulus[:1])
        return model.apply(variables, stimulus)[1]["pooled"][:, 0, 0]

    return jax.jit(pool)(jax.random.key(config.seed))


def _make_predict(config: ml_collections.ConfigDict, counts: UInt8[np.ndarray, "I R N"]) -> Callable:
    """Returns (features [I,L,F], trained [K,I], weight decay) -> counts [K,I,N] predicted by K readouts.

    Row k of `trained` says which images readout k is trained on, by one presentation at a time.
    """
    steps, batch_size = config.train.num_steps, config.data.batch_size
    optim = OptimConfig.read(config.optim, steps)
    known, spikes = jnp.asarray(counts != MISSING), jnp.asarray(counts, jnp.float32)
    draws, shuffle = jax.random.split(jax.random.key(config.seed))

    def predict(features: Array, trained: Array, weight_decay: float) -> Array:
        groups = {"readout": dataclasses.replace(optim.groups["readout"], weight_decay=weight_decay)}
        optimizer = functools.partial(
            make_optimizer, dataclasses.replace(optim, groups=groups), lambda _: "readout", num_steps=steps
        )

        def fit(rows: Array) -> Array:
            standardized = _standardize(features, rows).reshape(len(features), -1)
            scored = known & rows[:, None, None]
            mean_rate = jnp.where(scored, spikes, 0).sum((0, 1)) / scored.sum((0, 1))
            params = _start(draws, standardized.shape[1], counts.shape[2])
            given = optimizer(params)

            def log_rate(params: dict, features: Array) -> Array:
                drive = features @ params["kernel"].T + params["bias"][None]
                return jnp.log(mean_rate[None] * jax.nn.softplus(drive) + LOG_RATE_FLOOR)

            def loss(params: dict, image: Array, presentation: Array) -> Array:
                seen = (image, presentation)
                return losses.poisson_nll(
                    log_rate(params, standardized[image]), spikes[seen], known[seen].astype(jnp.float32)
                )

            def step(state: tuple, number: Array) -> tuple:
                params, opt_state = state
                which, repeat = jax.random.split(jax.random.fold_in(shuffle, number))
                image = jax.random.choice(which, len(rows), (batch_size,), p=rows / rows.sum())
                presentation = jax.random.randint(repeat, (batch_size,), 0, counts.shape[1])
                gradient = jax.grad(loss)(params, image, presentation)
                updates, opt_state = given.update(gradient, opt_state, params, number)
                return (optax.apply_updates(params, updates), opt_state), None

            (params, _), _ = jax.lax.scan(step, (params, given.init(params)), jnp.arange(steps))
            return jnp.exp(log_rate(params, standardized))

        return jax.lax.map(fit, trained, batch_size=AT_ONCE)

    return predict


def _standardize(features: Float[Array, "I L F"], rows: Bool[Array, " I"]) -> Float[Array, "I L F"]:
    """Makes mean 0 and deviation 1 over the rows, as the model does over its first batch."""
    mean = features.mean(0, where=rows[:, None, None])
    scale = features.std(0, where=rows[:, None, None])
    return (features - mean[None]) / jnp.maximum(scale, 1e-3 * scale.mean() + 1e-6)[None]


def _start(rng: Array, n_features: int, n_units: int) -> dict[str, Array]:
    kernel = 0.1 / np.sqrt(n_features) * jax.random.normal(rng, (n_units, n_features))
    return {"kernel": kernel, "bias": jnp.full((n_units,), UNIT_SOFTPLUS)}
