"""A trained model as a twin of the recorded units: rates for any movie and gaze."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from polarjax.core import ConfigError, PyTree, closest
from polarjax.models import inference
from polarjax.reports.runs import Run, open_run

STIMULUS_LIMIT = 1.5


class _Session(NamedTuple):
    window: Callable[..., np.ndarray]
    initial: Callable[[int], PyTree]
    advance: Callable[..., tuple[PyTree, np.ndarray]]


class Twin:
    """Predicts the rates of every unit of the run's sessions.

    Attributes:
      params: nested dict of NumPy arrays, to be read.
      config: the resolved config of the run.
      info: sessions, rate_hz, pixels_per_degree and frame_shape.
      unit_ids: {session: ids, in the order of the predicted columns}; () of a session without spikes.
      step: of the checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self.params, self.config, self.info, self.step = run.params, run.config, run.info, run.step
        self.unit_ids = {session.name: session.unit_ids for session in run.info.sessions}
        self._workdir = run.workdir
        self._needs_gaze = inference.needs_gaze(run.config, run.info)
        self._variables = {"params": run.params, **run.model_state}
        self._open: dict[str, _Session] = {}

    def predict(self, stimulus: ArrayLike, gaze: ArrayLike | None, session: str) -> Float[np.ndarray, "B N"]:
        """Rates at the last frame of each window, from a fresh state at its first.

        Args:
          stimulus: [B, T, H, W, C], uint8 luminance or (luminance - 127)/255; windows on the retina, oldest first.
          gaze: [B, T, 2], degrees, x right, y up; None only for a model that does not use it.
          session: one of `unit_ids`.

        Returns:
          Spikes/bin of the session's N units.

        Raises:
          ConfigError: unknown session or one without units, wrong shape or range, or no gaze where the model needs it.
        """
        functions = self._functions(session)
        stimulus = self._checked_stimulus(stimulus, ("B", "T"))
        gaze = self._checked_gaze(gaze, stimulus.shape[:2], ("B", "T"))
        return functions.window(stimulus, gaze)

    def stream(self, session: str) -> Stream:
        """Starts a movie of any length: a stream with a fresh state.

        Raises:
          ConfigError: unknown session, or one without units.
        """
        functions = self._functions(session)

        def advance(memory, stimulus, gaze):
            stimulus = self._checked_stimulus(stimulus, ("T",))[None]
            gaze = self._checked_gaze(gaze, stimulus.shape[1:2], ("T",))
            memory, rate = functions.advance(memory, stimulus, None if gaze is None else gaze[None])
            return memory, rate[0]

        return Stream(advance, functions.initial(1))

    def _functions(self, session):
        names = list(self.unit_ids)
        if session not in names:
            raise ConfigError(f"the run has no session {session!r}{closest(str(session), names)}")
        if not self.unit_ids[session]:
            recorded = [name for name, units in self.unit_ids.items() if units]
            raise ConfigError(
                f"session {session!r} has no units, so there are no rates to predict; sessions with units: "
                f"{', '.join(recorded) or 'none, the run was trained without spikes. Train one that starts from it, '}"
                f"{'' if recorded else f'--config.init_from={self._workdir}'}"
            )
        if session not in self._open:
            self._open[session] = self._make_functions(names.index(session))
        return self._open[session]

    def _make_functions(self, index):
        variables = inference.select_session(self._variables, self.info, index, self.config.model.name)
        variables = jax.tree.map(jnp.asarray, variables)
        window, initial, advance = inference.make_predictors(self.config, self.info, index)

        def last_rates(stimulus, gaze):
            return np.exp(np.asarray(window(variables, stimulus, gaze)))

        def rates(memory, stimulus, gaze):
            memory, log_rate = advance(variables, memory, stimulus, gaze)
            return memory, np.exp(np.asarray(log_rate))

        return _Session(last_rates, functools.partial(initial, variables), rates)

    def _checked_stimulus(self, stimulus, leading):
        stimulus = np.asarray(stimulus)
        expected = tuple(self.info.frame_shape)
        axes = ", ".join((*leading, *map(str, expected)))
        if stimulus.ndim != len(leading) + 3 or stimulus.shape[-3:] != expected or 0 in stimulus.shape:
            raise ConfigError(
                f"stimulus has shape {stimulus.shape}, expected [{axes}]: {' x '.join(leading)} frames of "
                "height x width x channels"
            )
        if stimulus.dtype == np.uint8:
            return (stimulus.astype(np.float32) - np.float32(127)) / np.float32(255)
        stimulus = stimulus.astype(np.float32)
        # One comparison that is False for NaN too.
        if not (np.abs(stimulus) <= STIMULUS_LIMIT).all():
            raise ConfigError(
                f"stimulus spans {stimulus.min():.4g} to {stimulus.max():.4g}, expected (luminance - 127)/255 within "
                f"[-{STIMULUS_LIMIT}, {STIMULUS_LIMIT}], or uint8 luminance. Usual cause: luminance 0..255 given as "
                "float"
            )
        return stimulus

    def _checked_gaze(self, gaze, leading, names):
        if not self._needs_gaze:
            return None
        expected = f"[{', '.join(names)}, 2] = {(*leading, 2)}"
        if gaze is None:
            raise ConfigError(
                f"gaze is missing: the rates of model {self.config.model.name} depend on it; "
                f"expected degrees, x right and y up, {expected}"
            )
        gaze = np.asarray(gaze, np.float32)
        if gaze.shape != (*leading, 2):
            raise ConfigError(
                f"gaze has shape {gaze.shape}, expected {expected}: one (x, y) a frame, degrees"
            )
        if not np.isfinite(gaze).all():
            raise ConfigError(
                "gaze holds NaN or infinite values; expected degrees. Usual cause: blinks, to be cut out or held"
            )
        return gaze


class Stream:
    """A movie that is seen piece by piece; the state at the end of a piece is the start of the next."""

    def __init__(self, advance: Callable[..., tuple[Any, np.ndarray]], memory: PyTree) -> None:
        self._advance, self._memory = advance, memory

    def step(self, stimulus: ArrayLike, gaze: ArrayLike | None) -> Float[np.ndarray, "T N"]:
        """Rates at every frame of the next piece, spikes/bin. Pieces of one length compile once.

        Args:
          stimulus: [T, H, W, C], uint8 luminance or (luminance - 127)/255.
          gaze: [T, 2], degrees, x right, y up; None only for a model that does not use it.

        Raises:
          ConfigError: wrong shape or range, or no gaze where the model needs it. The state stays as it was.
        """
        self._memory, rate = self._advance(self._memory, stimulus, gaze)
        return rate


def load(workdir: str | os.PathLike[str], step: int | str | None = None) -> Twin:
    """Opens a trained model; see `polarjax.load`."""
    return Twin(open_run(workdir, step))
