"""Recordings of other formats to session folders.

`python -m polarjax.data.convert image_counts FILE --recording NAME --out DIR`

image_counts reads an .npz of images shown again and again, one count a presentation:
  images uint8 [I,H,W]; movie [I]: which movie an image is a frame of; recordings: names of the recordings;
  counts_<recording> uint8 [I,repeats,N]: spikes in one window after the image appeared, 255 where it is
  missing.
Each presentation becomes a trial of grey, then the image, whose count is valid in the last bin alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from polarjax.core import ConfigError, DataError, PolarjaxError
from polarjax.data.image_counts import MISSING, find_recordings, get_counts, load_file
from polarjax.data.sessions import open_session, write_session

RATE_HZ = 120.0
GREY_FRAMES = 12
IMAGE_FRAMES = 24
PIXELS_PER_DEGREE = 16.0
TRAIN, VALIDATION, TEST = range(3)


def tiers_by_movie(
    movie: Int[np.ndarray, " I"],
    folds: int,
    fold: int,
    test_movies: Sequence[int] = (),
    *,
    validation: bool = True,
) -> Int[np.ndarray, " I"]:
    """Returns the tier of each image; all frames of a movie lie in one tier.

    The movies in order are dealt to the folds; `fold` is the test tier and the next one validation. With
    `test_movies` these are the test tier, and validation is as many of the movies that follow the last of
    them (from the first again at the end).

    Args:
      movie: number of the movie of each image.
      folds: into how many the movies are dealt.
      fold: which is tested, 0..folds - 1.
      test_movies: numbers of the movies to test instead.
      validation: whether there is a validation tier; without it those movies are trained too.

    Raises:
      ConfigError: a fold or movie that does not exist, or nothing left to train on.
    """
    movies = np.unique(movie).tolist()
    if test_movies:
        unknown = sorted(set(test_movies) - set(movies))
        if unknown:
            raise ConfigError(f"--test-movies names {unknown}; the movies of the file are {movies}")
        tested = sorted(set(test_movies))
        after = movies.index(tested[-1]) + 1
        left = [number for number in movies[after:] + movies[:after] if number not in tested]
        watched = left[: len(tested)]
    else:
        if not (3 <= folds <= len(movies) and 0 <= fold < folds):
            raise ConfigError(
                f"--folds {folds} --fold {fold}: allowed are 3..{len(movies)} folds of {len(movies)} movies "
                "and 0 <= fold < folds"
            )
        tested, watched = (movies[k % folds :: folds] for k in (fold, fold + 1))
    if len(tested) + len(watched) >= len(movies) or not watched:
        raise ConfigError(
            f"test movies {tested} and validation movies {watched} leave none of {movies} to train on"
        )
    watched = watched if validation else []
    tier = np.where(np.isin(movie, tested), TEST, np.where(np.isin(movie, watched), VALIDATION, TRAIN))
    return tier.astype(np.int64)


def session_arrays(
    images: UInt8[np.ndarray, "I H W"], counts: UInt8[np.ndarray, "I R N"], tier: Int[np.ndarray, " I"]
) -> dict[str, np.ndarray]:
    """Returns the arrays of a session with one trial a presentation.

    A presentation without any count is left out.

    Args:
      images: luminance.
      counts: spikes per presentation, 255 where missing.
      tier: of each image.
    """
    repeat, image = np.nonzero((counts != MISSING).any(axis=2).T)
    length = GREY_FRAMES + IMAGE_FRAMES
    frames = len(image) * length
    shown = counts[image, repeat]
    spikes = np.zeros((frames, counts.shape[2]), np.uint8)
    valid = np.zeros(spikes.shape, bool)
    last = slice(length - 1, None, length)
    spikes[last], valid[last] = np.where(shown == MISSING, 0, shown), shown != MISSING
    repeated = np.full(frames, -1, np.int32)
    repeated[last] = image
    grey = np.full((1, *images.shape[1:]), round(float(images.mean())), np.uint8)
    index = np.where(np.arange(length)[None] < GREY_FRAMES, 0, 1 + image[:, None])
    return {
        "frames": np.concatenate([grey, images]),
        "frame_index": index.reshape(-1).astype(np.int32),
        "gaze": np.zeros((frames, 2), np.float32),
        "spikes": spikes,
        "valid": valid,
        "repeat": repeated,
        "trial": np.repeat(np.arange(len(image), dtype=np.int32), length),
        "tier": np.repeat(tier[image], length).astype(np.uint8),
    }


def image_counts(
    file: Path,
    recording: str,
    out: Path,
    *,
    folds: int = 5,
    fold: int = 0,
    test_movies: Sequence[int] = (),
    validation: bool = True,
    pixels_per_degree: float = PIXELS_PER_DEGREE,
) -> list[Path]:
    """Writes sessions out/<recording> from images and repeated counts, 120 Hz, split by movie.

    Args:
      file: the .npz.
      recording: name of a recording, or 'all'.
      out: folder to create; must not exist, or be empty.
      folds: see `tiers_by_movie`.
      fold: see `tiers_by_movie`.
      test_movies: see `tiers_by_movie`.
      validation: see `tiers_by_movie`.
      pixels_per_degree: of the images. The gaze rests, so it only scales the positions of units in reports.

    Returns:
      The session folders.

    Raises:
      DataError: the file or the output folder.
      ConfigError: the recording or the split.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"--out {out} exists and is not an empty folder; choose a new one, or remove it first"
        )
    content = load_file(file)
    names = find_recordings(file, content, recording, also=("all",))
    tier = tiers_by_movie(content["movie"].astype(np.int64), folds, fold, test_movies, validation=validation)
    folders = []
    for name in names if recording == "all" else [recording]:
        counts = get_counts(file, content, name)
        held_out = [np.unique(content["movie"][tier == value]).tolist() for value in (VALIDATION, TEST)]
        source = f"{file.name}, recording {name}; validation movies {held_out[0]}, test movies {held_out[1]}"
        folder = write_session(
            out / name,
            name=name,
            subject=name.split("_")[0],
            rate_hz=RATE_HZ,
            pixels_per_degree=pixels_per_degree,
            unit_ids=[f"unit-{number:03d}" for number in range(counts.shape[2])],
            source=source,
            arrays=session_arrays(content["images"], counts, tier),
        )
        folders.append(folder)
    return folders


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m polarjax.data.convert", description="Makes session folders of recordings."
    )
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "image_counts", help="images shown again and again, one count a presentation"
    )
    command.add_argument("file", type=Path, help=".npz with images, movie, recordings and counts_<recording>")
    command.add_argument("--recording", required=True, help="name of a recording, or all")
    command.add_argument(
        "--out", type=Path, required=True, help="new folder; each recording becomes a folder inside"
    )
    command.add_argument(
        "--folds", type=int, default=5, help="the movies are dealt to so many folds (default 5)"
    )
    command.add_argument(
        "--fold", type=int, default=0, help="the test fold; the next one is validation (default 0)"
    )
    command.add_argument(
        "--test-movies", default="", help="numbers of the test movies, separated by commas, instead of a fold"
    )
    command.add_argument(
        "--no-validation",
        action="store_true",
        help="train on the movies of the validation tier too, once every setting is chosen",
    )
    command.add_argument(
        "--pixels-per-degree", type=float, default=PIXELS_PER_DEGREE, help="of the images (default 16)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, and prints an error as one line."""
    flags = _parser().parse_args(arguments)
    try:
        try:
            test_movies = [int(part) for part in flags.test_movies.split(",") if part.strip()]
        except ValueError as error:
            raise ConfigError(
                f"--test-movies is {flags.test_movies!r}; expected numbers separated by commas"
            ) from error
        folders = image_counts(
            flags.file,
            flags.recording,
            flags.out,
            folds=flags.folds,
            fold=flags.fold,
            test_movies=test_movies,
            validation=not flags.no_validation,
            pixels_per_degree=flags.pixels_per_degree,
        )
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for folder in folders:
        session = open_session(folder)
        trials = [len(np.unique(session.trial[session.tier == tier])) for tier in (TRAIN, VALIDATION, TEST)]
        print(
            f"{folder}: {len(session.unit_ids)} units; {trials[0]} training, {trials[1]} validation "
            f"and {trials[2]} test trials"
        )
        for note in session.notes:
            print(f"  {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
