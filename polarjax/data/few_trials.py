"""Training on a share of the trials, as if the others had not been recorded.

The trials of a smaller share are among those of a larger one, so that what more data add can be told from which
trials they are.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
from jaxtyping import Bool, Int

from polarjax.data.checks import chunks
from polarjax.data.segments import trial_bounds
from polarjax.data.sessions import Session

LEFT_OUT = 3
"""Tier of the training trials that are not used; never in a file."""
CHANNEL = 2
"""Keeps these random numbers apart from those of the epochs and of the emphasis."""


def keep_trials(session: Session, fraction: float, seed: int) -> Session:
    """Returns the session with some of its training trials; the others are in no tier, and nothing is learned of them.

    Units are silent that have no spike in what is left. A session without spikes loses nothing.

    Args:
      session: open session.
      fraction: share of the training trials that is kept, in (0, 1], at least one; 1 returns the session itself.
      seed: of the choice, with the name of the session.
    """
    bounds = trial_bounds(session)
    training = np.flatnonzero(session.tier[bounds[:, 0]] == 0)
    if fraction == 1 or not session.unit_ids or not training.size:
        return session
    order = np.random.default_rng([seed, zlib.crc32(session.name.encode()), CHANNEL]).permutation(training)
    number = max(1, round(fraction * len(training)))
    tier = np.array(session.tier)
    for first, end in bounds[order[number:]].tolist():
        tier[first:end] = LEFT_OUT
    silent = silent_units(session, tier != LEFT_OUT)
    used = f"{number} of {len(training)} training trials are used, for config.data.spike_fraction is {fraction:g}"
    notes = (*session.notes, used + _silent_note(silent, session))
    return dataclasses.replace(session, tier=tier, silent_units=silent, notes=notes)


def silent_units(session: Session, used: Bool[np.ndarray, " T"]) -> tuple[str, ...]:
    """Returns the ids of the units without a spike in the valid bins that are used."""
    heard = np.zeros(len(session.unit_ids), bool)
    for rows in chunks(len(used)):
        heard |= ((session.spikes[rows] > 0) & session.valid[rows] & used[rows, None]).any(axis=0)
    return tuple(unit for unit, some in zip(session.unit_ids, heard, strict=True) if not some)


def _silent_note(silent: tuple[str, ...], session: Session) -> str:
    if silent == session.silent_units:
        return ""
    return f"; {len(silent)} of {len(session.unit_ids)} units have no spike in them or in the other tiers"


def left_out_trials(session: Session) -> Int[np.ndarray, " trials"]:
    """Returns the numbers of the training trials that are not used."""
    return np.unique(session.trial[session.tier == LEFT_OUT])
