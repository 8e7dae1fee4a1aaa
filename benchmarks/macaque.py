"""Leave-one-movie-out on images and repeated counts: Polar-V1 against a ridge on local oriented energy.

python -m benchmarks.macaque --file macaque_v1_image_sequences.npz --recording ay4_u006 [--workdir DIR] [--json FILE]

For every movie: the other movies choose the widths and the decay (macaque_choice.py), sessions are made with this movie
as the test tier, configs/macaque_v1.py is trained with that choice on the others, and the movie's images are predicted.
The number is the correlation, over the images of all movies, of what was
predicted for a unit with its mean count over presentations; the median over units is printed. The ridge is trained and
tested on the same images; its penalty is chosen by leaving out one of the training movies after the other.
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

import polarjax
import polarjax.data
import polarjax.systems
from benchmarks import measure
from benchmarks.macaque_choice import SETTINGS, Setting, choose, correlation, mean_counts
from polarjax.core import ConfigError
from polarjax.data.convert import image_counts
from polarjax.data.image_counts import read_recording
from polarjax.engine import config, loop
from polarjax.engine.flags import parse_flags
from polarjax.ops.laplacian_pyramid import laplacian_pyramid
from polarjax.ops.quadrature import dense_quadrature, gabor_pairs

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "macaque_v1.py"
PENALTIES = 10.0 ** np.arange(1, 7)
CELLS, LEVELS, PAIRS, KERNEL, FREQUENCY = 8, 3, 8, 9, 0.25
FLAGS = {
    "file": ".npz with images, movie, recordings and counts_<recording>",
    "recording": "name of the recording",
    "config": "config file (default: configs/macaque_v1.py)",
    "workdir": "folder for sessions and runs (default: a temporary one)",
    "json": "file for the numbers",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, trains once a movie, prints the medians and writes the JSON."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
    for name in ("file", "recording"):
        if name not in flags:
            raise ConfigError(f"--{name} is missing: {FLAGS[name]}")
    file, recording = pathlib.Path(flags["file"]), flags["recording"]
    images, movie, counts = read_recording(file, recording)
    counts = mean_counts(counts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(flags.get("workdir", temporary))
        predicted, chosen = leave_one_movie_out(
            file, recording, folder, flags.get("config", str(CONFIG)), overrides
        )
    ridge = ridge_predictions(images, counts, movie)
    measured: dict[str, Any] = {"recording": recording, "units": counts.shape[1], "images": len(movie)}
    for number, setting in chosen.items():
        measured[f"movie_{number}"] = ", ".join(f"{key} {value}" for key, value in setting._asdict().items())
    for name, prediction in {"polar_v1": predicted, "ridge": ridge}.items():
        measured[name] = round(float(np.median(correlation(prediction, counts))), 3)
        each = [np.median(correlation(prediction[movie == m], counts[movie == m])) for m in np.unique(movie)]
        measured[f"{name}_within_movies"] = round(float(np.mean(each)), 3)
    measure.print_numbers(measured)
    measure.write_json(flags, measured)


def leave_one_movie_out(
    file: pathlib.Path, recording: str, folder: pathlib.Path, config_file: str, overrides: dict[str, str]
) -> tuple[Float[np.ndarray, "I N"], dict[int, Setting]]:
    """Chooses and trains once a movie and predicts its images.

    Returns:
      Predicted counts of every image by the model that did not see its movie, and every movie's setting.
    """
    with np.load(file) as archive:
        movie, images, counts = (
            archive["movie"].astype(int),
            archive["images"],
            archive[f"counts_{recording}"],
        )
    chosen = choose(config.load(config_file, overrides), images, counts, movie, SETTINGS)
    predicted = np.zeros((len(movie), counts.shape[2]))
    for number, setting in chosen.items():
        sessions = folder / f"sessions-{number}"
        image_counts(file, recording, sessions, test_movies=[number], validation=False)
        settings = setting.of(config.load(config_file, {"data.sessions": str(sessions), **overrides}))
        source = polarjax.data.build(settings.data)
        try:
            run = folder / f"run-{number}"
            loop.train(settings, polarjax.systems.build(settings, source.info), source, run)
        finally:
            source.close()
        tested = movie == number
        predicted[tested] = polarjax.load(run).predict(images[tested][:, None, :, :, None], None, recording)
    return predicted, chosen


def ridge_predictions(
    images: UInt8[np.ndarray, "I H W"], counts: Float[np.ndarray, "I N"], movie: Int[np.ndarray, " I"]
) -> Float[np.ndarray, "I N"]:
    """Predicts the images of every movie by a ridge on local oriented energy that saw the other movies."""
    features = local_energy(images)
    predicted = np.zeros_like(counts)
    for number in np.unique(movie):
        trained = movie != number
        inner = list(GroupKFold(len(np.unique(movie)) - 1).split(features[trained], groups=movie[trained]))
        scores = []
        for penalty in PENALTIES:
            left_out = np.zeros_like(counts[trained])
            for rows, held in inner:
                left_out[held] = _ridge(
                    features[trained][rows], counts[trained][rows], features[trained][held], penalty
                )
            scores.append(np.median(correlation(left_out, counts[trained])))
        best = PENALTIES[int(np.argmax(scores))]
        predicted[~trained] = _ridge(features[trained], counts[trained], features[~trained], best)
    return predicted


def local_energy(images: UInt8[np.ndarray, "I H W"]) -> Float[np.ndarray, "I features"]:
    """Mean amplitude of Gabor pairs in the cells of a grid, at every level of a Laplacian pyramid."""
    stimulus = (images[..., None].astype(np.float32) - 127) / 255
    even, odd = (jnp.asarray(part, jnp.float32) for part in gabor_pairs(KERNEL, PAIRS, 1, FREQUENCY))
    parts = []
    for level in laplacian_pyramid(jnp.asarray(stimulus), LEVELS, normalized=True):
        amplitude = np.hypot(*(np.asarray(part) for part in dense_quadrature(level, even, odd)))
        cells = min(CELLS, amplitude.shape[1] // 2)
        edges = [np.linspace(0, side, cells, endpoint=False).astype(int) for side in amplitude.shape[1:3]]
        summed = np.add.reduceat(np.add.reduceat(amplitude, edges[0], axis=1), edges[1], axis=2)
        parts.append(summed.reshape(len(images), -1))
    return np.concatenate(parts, axis=1)


def _ridge(features: np.ndarray, counts: np.ndarray, asked: np.ndarray, penalty: float) -> np.ndarray:
    scaler = StandardScaler().fit(features)
    return Ridge(penalty).fit(scaler.transform(features), counts).predict(scaler.transform(asked))


if __name__ == "__main__":
    measure.run(main)
