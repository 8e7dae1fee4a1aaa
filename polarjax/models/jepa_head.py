"""Self-supervision: predict the code of later summaries from earlier ones and the gaze between them.

    code = project(context maps),  prediction = predict(code with masked tokens hidden, action)
    loss = mean over levels of the mean over masked positions of 1 - cos(prediction, code of the target maps)

The head takes maps and gives codes; whose maps they are, and which parameters the target has, is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from polarjax.core import ConfigError, PyTree, closest
from polarjax.models.dense import Dense
from polarjax.ops.coding_rate import unit_rows
from polarjax.ops.collapse import diagnose, thin_rows
from polarjax.ops.convolution import correlate
from polarjax.ops.spread import PENALTIES, POOLED

SHORTEST_CODE = 1e-6
PENALISED_ROWS = 4096

Levels = Sequence[Float[Array, "B _ _ D"]]
Masks = Sequence[Bool[Array, "b _ _"]]


class JepaTerms(NamedTuple):
    """What the head makes of a batch.

    Attributes:
      loss: mean over deltas and levels; in [0, 2] where predictions are normalised.
      by_level: the same of every level.
      codes: of the contexts of the last delta, every level, as projected: not normalised.
      targets: of the target, normalised.
    """

    loss: Float[Array, ""]
    by_level: Float[Array, " L"]
    codes: list[Float[Array, "B _ _ K"]]
    targets: list[Float[Array, "B _ _ K"]]


class Projector(nn.Module):
    """Dense - exact GELU - Dense at every position."""

    width: int

    @nn.compact
    def __call__(self, maps: Float[Array, "B h w D"]) -> Float[Array, "B h w K"]:
        """Returns codes, not normalised."""
        hidden = Dense(self.width, name="hidden")(maps)
        return Dense(self.width, name="out")(nn.gelu(hidden, approximate=False))


class Predictor(nn.Module):
    """Convolution - exact GELU - Dense; the action and the delta are added before the GELU.

    Attributes:
      size: of the convolution's kernel, odd; 1 predicts each position from itself alone.
      n_deltas: with several, each has an embedding of its own.
    """

    width: int
    size: int
    n_deltas: int

    @nn.compact
    def __call__(
        self, code: Float[Array, "B h w K"], action: Float[Array, "B A"] | None, which: int
    ) -> Float[Array, "B h w K"]:
        """Returns predictions, not normalised; `which` is the index of the delta."""
        shape = (self.size, self.size, code.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        if self.n_deltas > 1:
            bias = bias + self.param("deltas", nn.initializers.zeros, (self.n_deltas, self.width))[which]
        hidden = correlate(code, kernel) + bias[None, None, None]
        if action is not None:
            added = Dense(self.width, use_bias=False, name="action")(action)
            hidden = hidden + added[:, None, None]
        return Dense(self.width, name="out")(nn.gelu(hidden, approximate=False))


class JepaHead(nn.Module):
    """Projectors, predictors and masked tokens of all levels.

    The reference's head is predictor_size=1, hides_masked=False, normalizes_prediction=False and no action: it sees
    what it is to predict, and its loss falls without bound.

    Attributes:
      width: of codes, K.
      deltas: how many frames ahead the targets are.
      predictor_size: support of the predictor, 3 x 3 positions or 1.
      hides_masked: the code at masked positions is replaced by a learned token before the predictor.
      normalizes_prediction: to unit length, as the target is.

    Source: Assran et al. (2023), I-JEPA; the reference is VisionCore's PolarJEPA.
    """

    n_levels: int
    width: int = 256
    deltas: tuple[int, ...] = (5,)
    predictor_size: int = 3
    hides_masked: bool = True
    normalizes_prediction: bool = True

    def setup(self) -> None:
        """Names the parts of every level."""
        levels = range(self.n_levels)
        self.projectors = [Projector(self.width, name=f"projector_{level}") for level in levels]
        sizes = (self.width, self.predictor_size, len(self.deltas))
        self.predictors = [Predictor(*sizes, name=f"predictor_{level}") for level in levels]
        if self.hides_masked:
            start, shape = nn.initializers.normal(self.width**-0.5), (self.n_levels, self.width)
            self.masked_token = self.param("masked_token", start, shape)

    def project(self, maps: Levels) -> list[Float[Array, "B _ _ K"]]:
        """Returns the codes of every level, not normalised."""
        return [project(x) for project, x in zip(self.projectors, maps, strict=True)]

    def predict(
        self, codes: Levels, masks: Masks, action: Float[Array, "B A"] | None, which: int
    ) -> list[Float[Array, "B _ _ K"]]:
        """Returns the predictions of every level from codes of unit length."""
        predictions = []
        for level, (code, mask) in enumerate(zip(codes, masks, strict=True)):
            if self.hides_masked:
                code = jnp.where(mask[..., None], self.masked_token[level][None, None, None], code)
            prediction = self.predictors[level](code, action, which)
            predictions.append(normalize(prediction) if self.normalizes_prediction else prediction)
        return predictions

    def __call__(
        self, context: Levels, masks: Masks, action: Float[Array, "B A"] | None = None, which: int = 0
    ) -> tuple[list[Float[Array, "B _ _ K"]], list[Float[Array, "B _ _ K"]]]:
        """Returns codes, not normalised, and predictions.

        Args:
          context: summary maps of every level.
          masks: True where the loss is read; of every example, or one for all.
          action: what the eye does until the target; see `jepa_pairs`.
          which: index among `deltas`.
        """
        codes = self.project(context)
        return codes, self.predict([normalize(code) for code in codes], masks, action, which)


def jepa_terms(
    head: JepaHead,
    params: PyTree,
    target_params: PyTree | None,
    contexts: Sequence[Levels],
    target: Levels,
    masks: Masks,
    actions: Sequence[Array | None],
    *,
    detached: bool = True,
) -> JepaTerms:
    """Returns the loss of one target and of one context for each of the head's deltas.

    Args:
      params: of the head; its target, a moving average or another of the same form, or None: the same parameters.
      contexts: summary maps `deltas` frames before the target, every level.
      target: summary maps that the target network made.
      masks: what `jepa_pairs.random_masks` draws.
      actions: one for each delta, None without.
      detached: no gradient reaches the target. False is there to show that codes then collapse.

    Raises:
      ConfigError: the number of contexts or of actions is not that of the deltas.
    """
    if not len(contexts) == len(actions) == len(head.deltas):
        raise ConfigError(
            f"The JEPA head has {len(head.deltas)} deltas {head.deltas}, but got {len(contexts)} contexts and "
            f"{len(actions)} actions; each delta has one of both."
        )
    of_target: PyTree = params if target_params is None else target_params
    projected: Any = head.apply({"params": of_target}, target, method="project")
    targets = [normalize(code) for code in projected]
    targets = jax.lax.stop_gradient(targets) if detached else targets
    losses, codes = [], []
    for which, (context, action) in enumerate(zip(contexts, actions, strict=True)):
        given: Any = head.apply({"params": params}, context, masks, action, which)
        codes, predictions = given
        pairs = zip(predictions, targets, masks, strict=True)
        losses.append(jnp.stack([masked_distance(*pair) for pair in pairs]))
    by_level = jnp.stack(losses).mean(0)
    return JepaTerms(by_level.mean(), by_level, codes, targets)


def masked_distance(
    prediction: Float[Array, "B h w K"], target: Float[Array, "B h w K"], mask: Bool[Array, "b h w"]
) -> Float[Array, ""]:
    """Returns the mean over examples and masked positions of 1 - <prediction, target>."""
    distance = 1 - (prediction * target).sum(-1)
    counted = jnp.broadcast_to(mask, distance.shape)
    return jnp.where(counted, distance, 0).sum() / counted.sum()


def normalize(code: Float[Array, "*S K"]) -> Float[Array, "*S K"]:
    """Returns codes of unit length, finite where a code is 0."""
    return unit_rows(code, SHORTEST_CODE)


def spread_penalty(name: str, codes: Levels, key: Array) -> Float[Array, ""]:
    """Returns the mean over levels of a penalty of `ops.spread` on codes that are not normalised.

    Raises:
      ConfigError: there is no such penalty.
    """
    if name not in PENALTIES:
        raise ConfigError(f"The penalty against collapse is {name!r}{closest(name, PENALTIES)}.")
    return jnp.stack([PENALTIES[name](*given) for given in _penalised(codes, key)]).mean()


def spread_means(name: str, codes: Levels, key: Array) -> list[PyTree]:
    """Returns what the penalty of a whole batch needs of a part: means over its rows, for every level.

    The key has to be the same for all parts.
    """
    return [POOLED[name].means(*given) for given in _penalised(codes, key)]


def pooled_penalty(
    name: str, codes: Levels, key: Array, whole: list[PyTree], n_parts: int
) -> Float[Array, ""]:
    """Returns `spread_penalty` of a whole batch, with the gradient of one of its parts.

        P(M + m - stop_gradient(m)),   M = 1/K sum_k m_k

    has the value P(M), and the mean over parts of its gradients is the gradient of P(M).

    Args:
      codes, key: of this part, as `spread_means` was given them.
      whole: the mean over parts of `spread_means`, M.
      n_parts: K, each with as many codes.
    """
    penalties = []
    for (rows, level_key), means in zip(_penalised(codes, key), whole, strict=True):
        mine = POOLED[name].means(rows, level_key)
        here = jax.tree.map(lambda total, part: total + (part - jax.lax.stop_gradient(part)), means, mine)
        penalties.append(POOLED[name].penalty(here, n_parts * len(rows)))
    return jnp.stack(penalties).mean()


def _penalised(codes: Levels, key: Array) -> list[tuple[Float[Array, "n K"], Array]]:
    rows = [thin_rows(code.reshape(-1, code.shape[-1]), PENALISED_ROWS) for code in codes]
    return list(zip(rows, jax.random.split(key, len(codes)), strict=True))


def watch(name: str, codes: Levels) -> dict[str, Float[Array, ""]]:
    """Returns {name/number_level: value} of `ops.collapse.diagnose` for codes of every level."""
    return {
        f"{name}/{number}_{level}": value
        for level, code in enumerate(codes)
        for number, value in diagnose(code.reshape(-1, code.shape[-1])).items()
    }
