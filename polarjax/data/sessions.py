"""Session folders: written atomically, opened as memory maps, checked before anything is computed.

session.json holds format_version, name, subject, rate_hz, pixels_per_degree, gaze_unit, count_unit, unit_ids,
source, tiers, the sha256 of every array and, with scenes.npy, `window` = {size: [H, W], pixels_per_degree}.
The arrays are listed in `arrays.SHAPES`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from polarjax.core import FORMAT_VERSION, DataError
from polarjax.data import checks
from polarjax.data.arrays import REQUIRED, SHAPES, Faults, convert, digest, open_array
from polarjax.data.counts import (
    COUNTS,
    check_counts_complete,
    check_true_rate,
    check_unit_ids,
    read_counts,
    without_counts,
)
from polarjax.data.gaze_checks import check_gaze_speed, gaze_notes
from polarjax.data.retina import WindowGeometry
from polarjax.data.session_fields import read_fields, window_geometry
from polarjax.data.time_checks import check_timestamps


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """An open session. Arrays are memory maps; T frames on one time line, N units.

    Attributes:
      folder: where it lies.
      name: unique in a run.
      subject: whose recording.
      source: where the data come from.
      rate_hz: frames and bins per second.
      pixels_per_degree: of `movie` as stored.
      unit_ids: names of the columns of spikes; () of a session without spikes.
      window: how retinal windows lie on the scenes; None where `movie` holds the windows themselves.
      movie: frames or scenes, luminance 0..255.
      frame_index: which image of `movie` is on the screen at t; held where that image is not finite.
      gaze: degrees, x right and y up; held at the last finite value in invalid bins.
      spikes: counts per bin.
      valid: where a count was recorded; without spikes [T, 1], True at the frames whose gaze and image are finite.
      trial: number of the trial of each frame.
      tier: 0 train, 1 validation, 2 test, and 3 at training trials that a run leaves out.
      repeat: the same number at the same bin of repeated trials, -1 elsewhere; None where there are no
        repeats.
      true_rate: oracle rate, spikes/bin, of generated sessions.
      fingerprint: sha256 over the digests of the arrays.
      silent_units: ids of the units without a spike in valid bins.
      notes: what a reader should know: silent units, implausible counts, held frames.
    """

    folder: Path
    name: str
    subject: str
    source: str
    rate_hz: float
    pixels_per_degree: float
    unit_ids: tuple[str, ...]
    window: WindowGeometry | None
    movie: Num[np.ndarray, "F H W C"]
    frame_index: Int[np.ndarray, " T"]
    gaze: Float[np.ndarray, "T 2"]
    spikes: Num[np.ndarray, "T N"]
    valid: Bool[np.ndarray, "T _"]
    trial: Int[np.ndarray, " T"]
    tier: Integer[np.ndarray, " T"]
    repeat: Int[np.ndarray, " T"] | None
    true_rate: Float[np.ndarray, "T N"] | None
    fingerprint: str
    silent_units: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def window_pixels_per_degree(self) -> float:
        """Pixels per degree of what the model sees."""
        return self.window.window_pixels_per_degree if self.window else self.pixels_per_degree

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the model sees."""
        height, width = self.window.window_shape if self.window else self.movie.shape[1:3]
        return int(height), int(width), int(self.movie.shape[3])


def open_session(folder: str | os.PathLike, ignore_spikes: bool = False) -> Session:
    """Opens a session folder and checks all of it.

    Args:
      folder: with session.json.
      ignore_spikes: open it as if it had been recorded without spikes; what belongs to counts is not read.

    Raises:
      DataError: says which file and field is wrong, its value, what was expected and what to do.
    """
    folder = Path(folder)
    fields = without_counts(read_fields(folder)) if ignore_spikes else read_fields(folder)
    arrays = _open_arrays(folder, fields, COUNTS if ignore_spikes else ())
    unit_ids = check_unit_ids(folder, fields["unit_ids"], "spikes" in arrays)
    checks.check_lengths(folder, arrays, len(unit_ids))
    kind = "frames" if "frames" in arrays else "scenes"
    stored = arrays[kind]
    movie = stored if stored.ndim == 4 else stored[..., None]
    frames = len(arrays["trial"])
    index = arrays.get("frame_index", np.arange(frames, dtype=np.int32))
    checks.check_movie(folder, kind, movie, index)
    checks.check_trials(folder, arrays["trial"], arrays["tier"])
    if "repeat" in arrays:
        checks.check_repeat(folder, arrays["repeat"])
    if "true_rate" in arrays:
        check_true_rate(folder, arrays["true_rate"])
    scored = np.asarray(np.any(arrays["valid"], axis=1)) if unit_ids else np.zeros(frames, bool)
    gaze = checks.hold_gaze(folder, arrays["gaze"], scored)
    held = checks.hold_frames(folder, kind, movie, index, scored)
    usable = np.isfinite(arrays["gaze"]).all(axis=1) & (held == index)
    spikes, valid, silent, notes = read_counts(folder, unit_ids, arrays, usable, fields["rate_hz"])
    check_gaze_speed(folder, gaze, arrays["trial"], fields["rate_hz"], fields["pixels_per_degree"])
    if "timestamps" in arrays:
        check_timestamps(folder, arrays["timestamps"], arrays["trial"], fields["rate_hz"])
    looked_at = scored if unit_ids else usable
    notes += gaze_notes(arrays["gaze"], looked_at, int((held != index).sum()), bool(unit_ids))
    return Session(
        folder=folder,
        name=fields["name"],
        subject=fields["subject"],
        source=fields["source"],
        rate_hz=float(fields["rate_hz"]),
        pixels_per_degree=float(fields["pixels_per_degree"]),
        unit_ids=unit_ids,
        window=window_geometry(folder, kind, fields, movie.shape[1:3]),
        movie=movie,
        frame_index=held,
        gaze=gaze,
        spikes=spikes,
        valid=valid,
        trial=arrays["trial"],
        tier=arrays["tier"],
        repeat=arrays.get("repeat"),
        true_rate=arrays.get("true_rate"),
        fingerprint=hashlib.sha256(json.dumps(sorted(fields["sha256"].items())).encode()).hexdigest(),
        silent_units=silent,
        notes=notes,
    )


def _open_arrays(folder: Path, fields: dict[str, Any], ignored: tuple[str, ...]) -> dict[str, np.ndarray]:
    digests = fields["sha256"]
    present = [name for name in SHAPES if (folder / f"{name}.npy").exists() or f"{name}.npy" in digests]
    present = [name for name in present if name not in ignored]
    check_counts_complete(folder, present, fields["unit_ids"])
    movies = [name for name in ("frames", "scenes") if name in present]
    if len(movies) != 1:
        found = " and ".join(movies) or "neither"
        raise Faults(folder).error(
            "frames.npy", f"expected frames.npy or scenes.npy, found {found}", "A session has one of them"
        )
    names = dict.fromkeys([*REQUIRED, *present])
    return {name: open_array(folder, name, digests.get(f"{name}.npy")) for name in names}


def write_session(
    folder: str | os.PathLike,
    *,
    name: str,
    subject: str,
    rate_hz: float,
    pixels_per_degree: float,
    unit_ids: list[str] | tuple[str, ...],
    source: str,
    arrays: Mapping[str, object],
    window: dict[str, Any] | None = None,
) -> Path:
    """Writes a session folder: all of it appears at once and opens without error, or nothing does.

    Args:
      folder: to create; must not exist, or be empty.
      name: of the session.
      subject: whose recording.
      rate_hz: frames and bins per second.
      pixels_per_degree: of frames or scenes.
      unit_ids: a name for each column of spikes; () for a session without spikes.
      source: where the data come from, with licence or citation.
      arrays: name of the array (`arrays.SHAPES`) -> values; converted to the stored type where nothing is
        lost. A session without spikes has neither 'spikes' nor 'valid'.
      window: with scenes: {'size': [H, W], 'pixels_per_degree': number} of the retinal windows.

    Raises:
      DataError: values that `open_session` refuses, or a folder that holds something already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and is not empty; a session is written to a new folder. Remove it or choose another"
        )
    converted = {key: convert(folder, key, values) for key, values in arrays.items()}
    fields = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "subject": subject,
        "rate_hz": float(rate_hz),
        "pixels_per_degree": float(pixels_per_degree),
        "gaze_unit": "deg",
        "count_unit": "spikes/bin",
        "unit_ids": [str(unit) for unit in unit_ids],
        "source": source,
        "tiers": checks.TIERS,
        **({"window": window} if window is not None else {}),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.partial" / folder.name
    shutil.rmtree(temporary.parent, ignore_errors=True)
    try:
        _write_files(temporary, fields, converted)
        open_session(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary.parent, ignore_errors=True)
    return folder


def _write_files(folder: Path, fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    digests = {}
    for name, values in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, values, allow_pickle=False)
        digests[path.name] = digest(path)
    text = json.dumps({**fields, "sha256": digests}, indent=1)
    (folder / "session.json").write_text(text + "\n", encoding="utf-8")


def find_sessions(text: str) -> list[Path]:
    """Returns the session folders that a config value names; see `list_folders`.

    Raises:
      DataError: what `list_folders` refuses, a wrong session.json, or two sessions of one name.
    """
    names: dict[str, Path] = {}
    for folder in list_folders(text):
        name = read_fields(folder)["name"]
        if name in names:
            raise DataError(
                f"two sessions have the name {name!r}: {names[name]} and {folder}; "
                "names are unique in a run, rename one"
            )
        names[name] = folder
    return list(names.values())


def list_folders(text: str) -> list[Path]:
    """Returns the session folders that a config value names, in its order (folders inside a folder by name).

    Args:
      text: a session folder, a folder of session folders, or several of either separated by commas.

    Raises:
      DataError: a folder that does not exist or holds no session.
    """
    folders = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        path = Path(part).expanduser()
        if not path.is_dir():
            raise DataError(
                f"config.data.sessions: {path} is not a folder; expected a session folder or a folder of them"
            )
        within = sorted(p.parent for p in path.glob("[!.]*/session.json"))
        inside = [path] if (path / "session.json").exists() else within
        if not inside:
            raise DataError(
                f"config.data.sessions: {path} holds no session.json, neither itself nor one folder below"
            )
        folders += inside
    if not folders:
        raise DataError(f"config.data.sessions is {text!r}; expected the path of a session folder")
    return folders
