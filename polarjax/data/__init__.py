"""Sources to batches: sessions of spikes under movies and gaze, cut into segments as a function of (seed, step)."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from polarjax.core import ConfigError, Data, DataError, DataInfo, SessionInfo, closest
from polarjax.data import resident, streamed, virtual_v1
from polarjax.data.assemble import Layout
from polarjax.data.checks import check_together
from polarjax.data.contrast import session_contrast
from polarjax.data.emphasis import Emphasis
from polarjax.data.few_trials import keep_trials
from polarjax.data.segments import Cut, Sampler
from polarjax.data.sessions import Session, find_sessions, open_session, write_session
from polarjax.data.statistics import session_statistics

__all__ = ["DataConfig", "build", "find_sessions", "open_session", "write_session"]

STORAGES = ("resident", "streamed")
LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class VirtualConfig:
    """The section config.data.virtual.

    Attributes:
      seed: of the virtual V1, >= 0.
      minutes: of recording in each session.
      cache: folder for generated sessions and statistics; '' is $XDG_CACHE_HOME/polarjax or ~/.cache/polarjax.
      gaze: '' for the simulated eye, or an .npz file of recorded gaze; see `gaze_recordings`.
    """

    seed: int
    minutes: float
    cache: str
    gaze: str


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The section config.data.

    Attributes:
      sessions: '' for the virtual V1, else session folders or folders of them, separated by commas.
      virtual: the virtual V1.
      burn_in: frames before the first predicted one.
      predicted: frames of a segment whose counts are predicted; 1 is the window form.
      batch_size: segments in a batch, a multiple of the number of sessions.
      storage: 'resident' (on the device) or 'streamed' (from disk); the same batches.
      seed: of the order of the segments, >= 0.
      session_weights: of each session's bins in training; () gives all the same.
      equal_subjects: weigh sessions so that every subject counts alike, however many it has; times session_weights.
      contrast_weight: chance of a segment of step 0 to be drawn in proportion to its RMS contrast; 0 for uniform ones.
      contrast_anneal: number of steps in which that chance falls to 0 in a line.
      drop_silent: do not train on units without a spike.
      ignore_spikes: open every session as if it had been recorded without spikes.
      spike_fraction: share of the training trials of each session that is used at all, in (0, 1]; without effect
        where there are no spikes.
    """

    sessions: str
    virtual: VirtualConfig
    burn_in: int
    predicted: int
    batch_size: int
    storage: str
    seed: int
    session_weights: tuple[float, ...]
    equal_subjects: bool
    contrast_weight: float
    contrast_anneal: int
    drop_silent: bool
    ignore_spikes: bool
    spike_fraction: float

    @classmethod
    def of(cls, section: Any) -> DataConfig:
        """Returns the checked section.

        Raises:
          ConfigError: names the key, its value and what is allowed.
        """
        values = _fields("config.data", cls, section)
        values["virtual"] = VirtualConfig(**_fields("config.data.virtual", VirtualConfig, values["virtual"]))
        values["session_weights"] = tuple(float(weight) for weight in values["session_weights"])
        config = cls(**values)
        config._check_ranges()
        return config

    def _check_ranges(self) -> None:
        lowest = {"burn_in": 0, "predicted": 1, "batch_size": 1, "seed": 0, "contrast_anneal": 0}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"config.data.{name} is {getattr(self, name)}; allowed are whole numbers >= {least}"
                )
        if self.storage not in STORAGES:
            raise ConfigError(f"config.data.storage is {self.storage!r}{closest(self.storage, STORAGES)}")
        if self.virtual.seed < 0 or not 0 < self.virtual.minutes < math.inf:
            raise ConfigError(f"config.data.virtual is {self.virtual}; seed >= 0 and minutes > 0 are allowed")
        if not all(0 < weight < math.inf for weight in self.session_weights):
            raise ConfigError(
                f"config.data.session_weights is {self.session_weights}; every weight is a number > 0"
            )
        if not 0 < self.spike_fraction <= 1:
            raise ConfigError(
                f"config.data.spike_fraction is {self.spike_fraction}; allowed are numbers in (0, 1], and 1 uses every "
                "training trial. For no spikes at all set config.data.ignore_spikes"
            )
        if not 0 <= self.contrast_weight <= 1 or (self.contrast_weight and not self.contrast_anneal):
            raise ConfigError(
                f"config.data.contrast_weight is {self.contrast_weight} and .contrast_anneal {self.contrast_anneal}; "
                "allowed are numbers in [0, 1], and above 0 with the number of steps after which all is uniform"
            )

    @property
    def cut(self) -> Cut:
        """Length of the segments."""
        return Cut(self.burn_in, self.predicted)

    @property
    def cache(self) -> Path:
        """Folder of generated sessions and statistics."""
        return Path(self.virtual.cache).expanduser() if self.virtual.cache else virtual_v1.default_cache()


def _fields(path: str, kind: type, section: Any) -> dict[str, Any]:
    """Returns the values of a section, each of the type that the dataclass `kind` states."""
    if not hasattr(section, "items"):
        raise ConfigError(f"{path} is {section!r}; expected a section of keys")
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    for name in section:
        if name not in types:
            raise ConfigError(f"{path}.{name} is unknown{closest(name, types)}")
    missing = [name for name in types if name not in section]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}; every key has to be set")
    return {name: _typed(f"{path}.{name}", section[name], wanted) for name, wanted in types.items()}


def _typed(path: str, value: Any, wanted: str) -> Any:
    if wanted.startswith("tuple") and isinstance(value, tuple | list):
        return tuple(_typed(path, number, "float") for number in value)
    kinds: dict[str, Any] = {"int": int, "float": int | float, "str": str, "bool": bool}
    kind = kinds.get(wanted, tuple if wanted.startswith("tuple") else object)
    whole = isinstance(value, float) and wanted == "int" and value.is_integer()
    if not (isinstance(value, kind) or whole) or (isinstance(value, bool) and wanted != "bool"):
        raise ConfigError(f"{path} is {value!r}; expected a value of type {wanted}")
    return float(value) if wanted == "float" else int(value) if whole else value


def build(section: Any, *, whole: bool = False) -> Data:
    """Opens the sessions of a config section and returns them as batches.

    Args:
      section: config.data, with exactly the keys of `DataConfig`.
      whole: in a run of several processes this one gets all rows of a streamed batch, not its share of them.

    Raises:
      ConfigError: a key or value of the section.
      DataError: a session folder, or sessions that do not fit together.
    """
    config = DataConfig.of(section)
    sessions = tuple(_open(folder, config) for folder in _folders(config))
    check_together(sessions, [session.frame_shape for session in sessions])
    kept = tuple(_kept(session, config.drop_silent) for session in sessions)
    weights, emphasis = _weights(config, sessions), _emphasis(config, sessions)
    sampler = Sampler(sessions, kept, config.cut, weights, config.seed, emphasis)
    sampler.train(0, config.batch_size)
    for session in sessions:
        for note in session.notes:
            LOGGER.warning("session %s: %s", session.name, note)
    layout = Layout(
        tuple(session.window for session in sessions),
        tuple(len(session.unit_ids) for session in sessions),
        sessions[0].frame_shape,
        config.cut,
    )
    info = _info(config, sessions)
    if config.storage == "streamed":
        return _streamed(config, sampler, layout, info, whole)
    loaded = tuple(resident.load(session, mask) for session, mask in zip(sessions, kept, strict=True))
    fetch = resident.make_fetch(layout)
    return Data(info, loaded, _train(sampler, config), sampler.evaluation, fetch, sessions, lambda: None)


def _open(folder: Path, config: DataConfig) -> Session:
    session = open_session(folder, config.ignore_spikes)
    return keep_trials(session, config.spike_fraction, config.seed)


def _train(sampler: Sampler, config: DataConfig) -> Any:
    return lambda step: sampler.train(step, config.batch_size)


def _streamed(config: DataConfig, sampler: Sampler, layout: Layout, info: DataInfo, whole: bool) -> Data:
    reader = streamed.Reader(sampler, config.batch_size, whole=whole)
    fetch = streamed.make_fetch(layout)
    return Data(info, (), reader.train, reader.evaluation, fetch, sampler.sessions, reader.close)


def _folders(config: DataConfig) -> list[Path]:
    if config.sessions:
        return find_sessions(config.sessions)
    virtual = config.virtual
    asked = (virtual.seed, virtual.minutes, virtual.cache, virtual.gaze)
    return [Path(folder) for folder in virtual_v1.ensure_virtual_v1(*asked)]


def _kept(session: Session, drop_silent: bool) -> np.ndarray:
    silent = set(session.silent_units) if drop_silent else set()
    kept = np.asarray([unit not in silent for unit in session.unit_ids], bool)
    if session.unit_ids and not kept.any():
        raise DataError(
            f"session {session.name}: no unit has a spike in a valid bin; check spikes.npy ({session.folder})"
        )
    return kept


def _weights(config: DataConfig, sessions: tuple[Session, ...]) -> tuple[float, ...]:
    weights = config.session_weights or (1.0,) * len(sessions)
    if len(weights) != len(sessions):
        names = ", ".join(session.name for session in sessions)
        raise ConfigError(
            f"config.data.session_weights has {len(weights)} weights for {len(sessions)} sessions ({names}); "
            "give one for each, or ()"
        )
    # Sessions without spikes are in no loss of counts: neither their number nor their weights touch the others.
    weighed = [bool(session.unit_ids) for session in sessions]
    if config.equal_subjects:
        of_subject = Counter(session.subject for session in compress(sessions, weighed))
        pairs = zip(weights, sessions, strict=True)
        weights = tuple(weight / (of_subject[session.subject] or 1) for weight, session in pairs)
    of_units = tuple(compress(weights, weighed)) or weights
    return tuple(weight * len(of_units) / sum(of_units) for weight in weights)


def _emphasis(config: DataConfig, sessions: tuple[Session, ...]) -> Emphasis | None:
    if not config.contrast_weight:
        return None
    contrast = tuple(session_contrast(session, config.cache) for session in sessions)
    return Emphasis(config.contrast_weight, config.contrast_anneal, contrast)


def _info(config: DataConfig, sessions: tuple[Session, ...]) -> DataInfo:
    entries = []
    for session in sessions:
        found = session_statistics(session, config.cache)
        folder = str(session.folder.resolve()) if config.sessions else ""
        counts = (session.name, session.subject, session.unit_ids, found.mean_count, found.position_deg)
        entries.append(SessionInfo(*counts, session.fingerprint, folder))
    first = sessions[0]
    return DataInfo(tuple(entries), first.rate_hz, float(first.window_pixels_per_degree), first.frame_shape)
