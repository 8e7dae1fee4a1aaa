"""The words that all other modules share: batch, system, data, errors.

Axis letters: B batch, T frames (oldest first), H W pixels, C input channels, L pyramid levels, M quadrature pairs,
N units, S sessions, D features. Channels are last.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # Names of arrays alone: importing them would bring in JAX, which reading a checkpoint does not need.
    from jaxtyping import Array, Float

FORMAT_VERSION = 1
READOUT = "readout"  # group of the parameters [S, N, ..] that belong to the units of single sessions

PyTree = Any


class PolarjaxError(ValueError):
    """An error whose message is all that a user needs: what was wrong, the value, what is allowed, what to do."""

    exit_code = 1


class ConfigError(PolarjaxError):
    """A flag or a value of the config is wrong (exit code 2)."""

    exit_code = 2


class DataError(PolarjaxError):
    """A session folder or an array in it is wrong (exit code 3)."""

    exit_code = 3


class CheckpointError(PolarjaxError):
    """A checkpoint or the storage below it is wrong (exit code 4)."""

    exit_code = 4


class NumericError(PolarjaxError):
    """Training met non-finite numbers that persist (exit code 5)."""

    exit_code = 5


class Batch(NamedTuple):
    """Segments of several sessions; example i belongs to session i % S.

    Attributes:
      stimulus: movie on the retina, (luminance - 127)/255, oldest frame first.
      gaze: where the eye points, degrees, x right and y up, same frames.
      spikes: counts per bin at the last n frames; 0 for the units that pad a session to N, which is 0 where no
        session has spikes.
      valid: 1 where a count may be scored, else 0; in training times the weight of the session.
    """

    stimulus: Float[Array, "B T H W C"]
    gaze: Float[Array, "B T 2"]
    spikes: Float[Array, "B n N"]
    valid: Float[Array, "B n N"]


class LossOutput(NamedTuple):
    """What `System.loss` returns.

    Attributes:
      loss: the weighted sum of all terms.
      scalars: named numbers to log.
      model_state: the model's collections after the step.
      target_params: the slowly moving copy after the step; None without one.
    """

    loss: Float[Array, ""]
    scalars: dict[str, Float[Array, ""]]
    model_state: PyTree
    target_params: PyTree = None


class System(NamedTuple):
    """A model, its losses and its batches, as pure functions. The engine knows nothing else of it.

    Attributes:
      init: (rng, batch) -> {'params': .., other Flax collections, 'target': a slowly moving copy where there is one}.
      loss: (params, state, batch, rng) -> LossOutput; `state` is the whole TrainState before the step. With `pool`,
        (params, state, batch, rng, mean of `pool` over the micro-batches of the step).
      predict: (params, model_state, batch) -> log rate [B, n, N] at the last n frames, log spikes/bin.
      eval_sums: (state, batch) -> pytree of sums over the batch, to be added over a split.
      eval_metrics: (sums over the split) -> {name: number}.
      param_group: ('core', 'filters', 'kernel') -> name of the optimizer group; READOUT is that of the leaves
        [S, N, ..] of single sessions, all others are shared.
      constants: params -> {name: number} in natural units, logged at every interval.
      project: (params, share of the run that is done) -> the nearest params that config.optim.bounds allows.
      measure: (variables, batch) -> variables whose other collections are what these params make of the batch; `init`
        has done so for the params that it draws.
      pool: (state, batch) -> what a loss that is no mean over micro-batches needs of each, as means over its rows; None
        where there is no such loss. It costs a pass over the micro-batches and one more all-reduce.
    """

    init: Callable[..., PyTree]
    loss: Callable[..., LossOutput]
    predict: Callable[..., Array]
    eval_sums: Callable[..., PyTree]
    eval_metrics: Callable[[PyTree], dict[str, float]]
    param_group: Callable[[tuple[str, ...]], str]
    constants: Callable[[PyTree], dict[str, Any]]
    project: Callable[[PyTree, Any], PyTree] = lambda params, progress: params
    measure: Callable[[PyTree, Any], PyTree] = lambda variables, batch: variables
    pool: Callable[..., PyTree] | None = None


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """What a model and its checkpoint keep of a session.

    Attributes:
      name: name of the session, unique in a run.
      unit_ids: N names of the units, in the order of the columns of spikes.npy; () of a session without spikes.
      mean_count: N mean counts per bin over the valid bins of the training tier.
      position_deg: N pairs (x, y), degrees from the centre of the window: where the counts follow the local energy.
      fingerprint: sha256 over session.json's array digests.
      path: folder, or '' for an embedded session.
    """

    name: str
    subject: str
    unit_ids: tuple[str, ...]
    mean_count: tuple[float, ...]
    position_deg: tuple[tuple[float, float], ...]
    fingerprint: str
    path: str


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a model must know of its data, and all that a checkpoint keeps of it (JSON by `dataclasses.asdict`).

    Attributes:
      sessions: in the order of the batch layout.
      rate_hz: frames (and bins) per second; the one source of dt.
      pixels_per_degree: of the windows that the model sees.
      frame_shape: (H, W, C) of the windows.
    """

    sessions: tuple[SessionInfo, ...]
    rate_hz: float
    pixels_per_degree: float
    frame_shape: tuple[int, int, int]

    @property
    def max_units(self) -> int:
        """N, the largest number of units of a session."""
        return max(len(session.unit_ids) for session in self.sessions)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DataInfo:
        """Rebuilds the value from its JSON form."""
        sessions = tuple(
            SessionInfo(
                entry["name"],
                entry["subject"],
                tuple(entry["unit_ids"]),
                tuple(entry["mean_count"]),
                tuple((x, y) for x, y in entry["position_deg"]),
                entry["fingerprint"],
                entry["path"],
            )
            for entry in fields["sessions"]
        )
        return cls(sessions, fields["rate_hz"], fields["pixels_per_degree"], tuple(fields["frame_shape"]))


class Data(NamedTuple):
    """Sessions as batches; every batch is a function of (seed, step).

    Attributes:
      info: what the model and the checkpoint keep.
      resident: arrays that stay on every device, handed to `fetch`.
      train: step -> request (dict of NumPy arrays with a leading axis B) of the global batch; `start` is the first
        frame of each row.
      evaluation: (tier, batch_size) -> requests that score every bin of the tier once; tier is 0, 1 or 2.
      fetch: (resident, request) -> Batch, pure and traced inside the compiled step.
      sessions: the open session folders, for reports (memory-mapped arrays).
      close: stops background readers.
    """

    info: DataInfo
    resident: PyTree
    train: Callable[[int], PyTree]
    evaluation: Callable[[int, int], Iterator[PyTree]]
    fetch: Callable[[PyTree, PyTree], Batch]
    sessions: tuple[Any, ...]
    close: Callable[[], None]


def as_numbers(values: Any) -> tuple[float, ...]:
    """Returns a tuple or list of numbers as floats; () for anything else."""
    if not isinstance(values, tuple | list):
        return ()
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return ()
    return tuple(map(float, values))


def closest(name: str, allowed: Iterable[str]) -> str:
    """Returns ', did you mean ..?' for a misspelt name, or the allowed names where none is near."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed are {', '.join(allowed)}"
