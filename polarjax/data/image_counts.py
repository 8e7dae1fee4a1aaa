"""Files of images shown again and again, one count a presentation; the format is described in `convert`."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from polarjax.core import ConfigError, DataError, closest

MISSING = 255


def read_recording(
    file: Path, recording: str
) -> tuple[UInt8[np.ndarray, "I H W"], Int[np.ndarray, " I"], UInt8[np.ndarray, "I R N"]]:
    """Reads what an .npz of images and repeated counts holds of one recording.

    Returns:
      The images, the movie of each, and the counts, MISSING where there is none.

    Raises:
      DataError: the file.
      ConfigError: the recording.
    """
    content = load_file(file)
    find_recordings(file, content, recording)
    return content["images"], content["movie"].astype(np.int64), get_counts(file, content, recording)


def find_recordings(
    file: Path, content: dict[str, np.ndarray], recording: str, also: Sequence[str] = ()
) -> list[str]:
    """Returns the names of all recordings, `recording` among them or in `also`.

    Raises:
      ConfigError: it is in neither.
    """
    names = [str(name) for name in content["recordings"]]
    if recording not in (*names, *also):
        raise ConfigError(f"--recording {recording!r} is not in {file}{closest(recording, [*names, *also])}")
    return names


def load_file(file: Path) -> dict[str, np.ndarray]:
    """Reads all arrays.

    Raises:
      DataError: no such file, none of these, or without images and movies that fit.
    """
    if not file.is_file():
        raise DataError(f"file {file} does not exist; expected the .npz with images and counts")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"file {file} cannot be read as .npz ({error}); copy it again") from error
    missing = [name for name in ("images", "movie", "recordings") if name not in content]
    if missing:
        raise DataError(
            f"file {file} lacks {', '.join(missing)}; it holds {', '.join(sorted(content)) or 'nothing'}"
        )
    images, movie = content["images"], content["movie"]
    if images.ndim != 3 or images.dtype != np.uint8 or movie.shape != images.shape[:1]:
        raise DataError(
            f"file {file}: images is {images.dtype} {images.shape} and movie {movie.shape}; "
            "expected uint8 [I, H, W] and [I]"
        )
    return content


def get_counts(file: Path, content: dict[str, np.ndarray], name: str) -> UInt8[np.ndarray, "I R N"]:
    """Returns the counts of a recording.

    Raises:
      DataError: they are missing, of another shape, or all missing.
    """
    counts = content.get(f"counts_{name}")
    images = len(content["images"])
    if counts is None or counts.ndim != 3 or counts.dtype != np.uint8 or len(counts) != images:
        found = "missing" if counts is None else f"{counts.dtype} {counts.shape}"
        raise DataError(f"file {file}: counts_{name} is {found}; expected uint8 [{images}, repeats, units]")
    recorded: Bool[np.ndarray, "I R N"] = counts != MISSING
    if not recorded.any():
        raise DataError(f"file {file}: counts_{name} holds no count, all values are {MISSING} (missing)")
    return counts
