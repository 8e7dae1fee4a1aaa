"""Virtual V1: two sessions of units whose parameters and rates are known, generated on first use and cached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from polarjax.core import DataError
from polarjax.data import gaze_recordings, gaze_simulation, scenes, virtual_units
from polarjax.data.gaze_recordings import GazeTraces
from polarjax.data.sessions import write_session

GENERATOR_VERSION = 2
RATE_HZ = 120.0
PIXELS_PER_DEGREE = 37.0
WINDOW_SIZE = 51
FIELD_DEG = 4.0
SESSION_UNITS = {"virtual-a": 40, "virtual-b": 30}
TRIAL_S = 4.0
RECORDED_TRIAL_S = 1.0  # fixations that animals hold are short
MIN_TRIALS = 10
TEST_SHARE = 0.12
VALIDATION_SHARE = 0.08
REPEATS_PER_SCENE = 4
SPLIT, GAZE, UNITS, COUNTS = range(4)  # a session's streams of random numbers


def default_cache() -> Path:
    """Folder for what can be generated again: $XDG_CACHE_HOME/polarjax, or ~/.cache/polarjax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polarjax"


def ensure_virtual_v1(seed: int, minutes: float, cache: str | Path = "", gaze: str = "") -> list[Path]:
    """Returns the folders of the two virtual sessions, generating them where they are missing or damaged.

    Args:
      seed: of everything that is random; the same seed gives the same bytes.
      minutes: length of each session; at least 10 trials are made, of 4 s where the minutes allow, of 1 s with
        recorded gaze.
      cache: folder for generated data; '' is `default_cache()`.
      gaze: an .npz file of recorded gaze (`gaze_recordings`); '' simulates the eye.

    Returns:
      Session folders, each with `true_rate.npy` (spikes/bin) and `units.json` (true parameters) beside the data.

    Raises:
      DataError: the cache cannot be written, or the file of the gaze is not what is expected.
    """
    root = Path(cache).expanduser() if cache else default_cache()
    recorded = gaze_recordings.read_traces(gaze, RATE_HZ) if gaze else None
    eye = f"-gaze{recorded.sha256[:12]}" if recorded else ""
    folder = root / "virtual_v1" / f"version{GENERATOR_VERSION}-seed{seed}-minutes{minutes:g}{eye}"
    if not _is_intact(folder):
        try:
            _generate(folder, seed, minutes, recorded)
        except OSError as error:
            message = f"cannot write the virtual V1 to {folder}: {error}"
            raise DataError(
                f"{message}; name a folder that can be written in config.data.virtual.cache"
            ) from error
    return [folder / name for name in SESSION_UNITS]


def _is_intact(folder: Path) -> bool:
    """True if every array of both sessions has the digest that its session.json states."""
    try:
        for name in SESSION_UNITS:
            header = json.loads((folder / name / "session.json").read_text())
            json.loads((folder / name / "units.json").read_text())
            for file, digest in header["sha256"].items():
                with (folder / name / file).open("rb") as stream:
                    if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _generate(folder: Path, seed: int, minutes: float, recorded: GazeTraces | None) -> None:
    """Writes both sessions beside the target and moves them there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        images = scenes.load_scenes()
        for index, name in enumerate(SESSION_UNITS):
            _write(building / name, images, seed, index, minutes, recorded)
        if _is_intact(folder):  # another process was faster
            return
        if folder.exists():
            folder.rename(building / "damaged")
        (building / "sessions").mkdir()
        for name in SESSION_UNITS:
            (building / name).rename(building / "sessions" / name)
        (building / "sessions").rename(folder)
    except OSError:
        if not _is_intact(folder):  # here too another process may have been faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(
    folder: Path, images: scenes.Scenes, seed: int, index: int, minutes: float, recorded: GazeTraces | None
) -> None:
    """Simulates one session and writes its folder."""
    name = folder.name
    streams = {use: np.random.default_rng([seed, index, use]) for use in (SPLIT, GAZE, UNITS, COUNTS)}
    n_trials = max(MIN_TRIALS, round(minutes * 60.0 / (RECORDED_TRIAL_S if recorded else TRIAL_S)))
    n_frames = max(1, round(minutes * 60.0 * RATE_HZ / n_trials))
    scene, tier, repeated = assign_scenes(streams[SPLIT], images.tier, n_trials)
    gaze = _move_eye(streams[GAZE], tier, n_frames, recorded)
    units = virtual_units.draw_units(streams[UNITS], SESSION_UNITS[name])
    responses = filter_scenes(units, images.luminance, scene, gaze)
    rate = virtual_units.firing_rate(units, *responses, gaze, tier == 0, RATE_HZ) / RATE_HZ
    rate = rate.reshape(n_trials * n_frames, -1).astype(np.float32)
    bins = np.arange(n_frames, dtype=np.int32)[None]
    repeat = np.where(repeated[:, None] >= 0, repeated[:, None] * n_frames + bins, -1)
    arrays = {
        "scenes": images.luminance,
        "frame_index": np.repeat(scene, n_frames).astype(np.int32),
        "gaze": gaze.reshape(-1, 2),
        "spikes": np.minimum(streams[COUNTS].poisson(rate), 255).astype(np.uint8),
        "valid": np.ones((len(rate), 1), bool),
        "trial": np.repeat(np.arange(n_trials, dtype=np.int32), n_frames),
        "tier": np.repeat(tier, n_frames).astype(np.uint8),
        "repeat": repeat.reshape(-1).astype(np.int32),
        "true_rate": rate,
    }
    unit_ids = [f"{'complex' if kind else 'simple'}-{n:02d}" for n, kind in enumerate(units.is_complex)]
    write_session(
        folder,
        name=name,
        subject="virtual",
        rate_hz=RATE_HZ,
        pixels_per_degree=PIXELS_PER_DEGREE,
        unit_ids=unit_ids,
        source=f"polarjax virtual V1, generator {GENERATOR_VERSION}, seed {seed}{_gaze_source(recorded)}",
        arrays=arrays,
        window={"size": [WINDOW_SIZE, WINDOW_SIZE], "pixels_per_degree": PIXELS_PER_DEGREE},
    )
    (folder / "units.json").write_text(json.dumps(describe_units(units, unit_ids, images), indent=1))


def _move_eye(
    rng: np.random.Generator, tier: UInt8[np.ndarray, " K"], n_frames: int, recorded: GazeTraces | None
) -> Float[np.ndarray, "K T 2"]:
    if recorded is None:
        trials = [gaze_simulation.simulate_gaze(rng, n_frames, RATE_HZ, FIELD_DEG) for _ in tier]
        return np.stack(trials)
    pieces = gaze_recordings.cut_trials(recorded, n_frames, RATE_HZ, FIELD_DEG)
    return gaze_recordings.lay_over(rng, pieces, tier, FIELD_DEG)


def _gaze_source(recorded: GazeTraces | None) -> str:
    return f", gaze of {recorded.file.name} (sha256 {recorded.sha256[:12]})" if recorded else ""


def assign_scenes(
    rng: np.random.Generator, scene_tier: UInt8[np.ndarray, " F"], n_trials: int
) -> tuple[Int[np.ndarray, " K"], UInt8[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Shares trials among the tiers and gives each a scene of its tier, in random order.

    About half of the test trials show few scenes again and again, at most half of the test scenes; the other half
    of the trials shows the other test scenes.

    Args:
      rng: source of randomness.
      scene_tier: tier of each scene.
      n_trials: K.

    Returns:
      Scene, tier, and the number of the repeated scene or -1, of each trial.
    """
    n_test = max(4, round(TEST_SHARE * n_trials))
    n_validation = max(1, round(VALIDATION_SHARE * n_trials))
    tier = np.repeat([2, 1, 0], [n_test, n_validation, n_trials - n_test - n_validation])
    scene, repeated = np.zeros(n_trials, np.int32), np.full(n_trials, -1, np.int32)
    n_repeats = n_test // 2
    n_repeated = min(max(1, n_repeats // REPEATS_PER_SCENE), np.count_nonzero(scene_tier == 2) // 2)
    for value in range(3):
        pool = rng.permutation(np.flatnonzero(scene_tier == value))
        trials = np.flatnonzero(tier == value)
        if value == 2:
            repeated[trials[:n_repeats]] = np.arange(n_repeats) % n_repeated
            scene[trials[:n_repeats]] = pool[repeated[trials[:n_repeats]]]
            trials, pool = trials[n_repeats:], pool[n_repeated:]
        scene[trials] = np.resize(pool, len(trials))
    order = rng.permutation(n_trials)
    return scene[order], tier[order].astype(np.uint8), repeated[order]


def sample_windows(
    scene: UInt8[np.ndarray, "H W"], gaze: Float[np.ndarray, "T 2"]
) -> Float[np.ndarray, "T S S"]:
    """Samples 51 x 51 windows bilinearly at the gaze out of a scene of the same pixels per degree.

    Args:
      scene: grey levels; its centre is gaze (0, 0), rows decrease with y; beyond its border lies 127.
      gaze: degrees, x right and y up.

    Returns:
      Grey levels.
    """
    margin = WINDOW_SIZE + 1
    padded = np.pad(scene, margin, constant_values=int(scenes.MEAN_LUMINANCE))
    first = (np.array(padded.shape) - WINDOW_SIZE) / 2 + np.asarray(gaze, np.float64)[:, ::-1] * (
        -PIXELS_PER_DEGREE,
        PIXELS_PER_DEGREE,
    )
    first = np.clip(first, 0, np.array(padded.shape) - WINDOW_SIZE - 1)
    corner = np.floor(first).astype(int)
    share = (first - corner).astype(np.float32)[:, :, None, None]
    patches = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW_SIZE + 1, WINDOW_SIZE + 1))
    patch = patches[corner[:, 0], corner[:, 1]].astype(np.float32)
    rows = patch[:, :-1] + share[:, 0] * (patch[:, 1:] - patch[:, :-1])
    return rows[:, :, :-1] + share[:, 1] * (rows[:, :, 1:] - rows[:, :, :-1])


def filter_scenes(
    units: virtual_units.Units,
    luminance: UInt8[np.ndarray, "F H W"],
    scene: Int[np.ndarray, " K"],
    gaze: Float[np.ndarray, "K T 2"],
) -> tuple[Float[np.ndarray, "K T N"], Float[np.ndarray, "K T N"], Float[np.ndarray, "K T N"]]:
    """Applies the receptive fields of all units along the gaze, trial by trial: windows are never kept.

    Returns:
      Even responses, odd responses and local RMS contrast.
    """
    even, odd, surround = virtual_units.make_receptive_fields(units, WINDOW_SIZE, PIXELS_PER_DEGREE)
    linear = np.concatenate([even, odd, surround], axis=1)
    results = np.empty((3, *gaze.shape[:2], even.shape[1]), np.float32)
    for trial, index in enumerate(scene):
        windows = (sample_windows(luminance[index], gaze[trial]) - np.float32(127)) / np.float32(255)
        windows = windows.reshape(len(windows), -1)
        results[0, trial], results[1, trial], mean = np.split(windows @ linear, 3, axis=1)
        results[2, trial] = np.sqrt(np.maximum((windows**2) @ surround - mean**2, 0.0))
    return results[0], results[1], results[2]


def describe_units(units: virtual_units.Units, unit_ids: list[str], images: scenes.Scenes) -> dict:
    """True parameters of the units, and the photographs of the scenes, as JSON."""
    columns = {name: np.asarray(values).tolist() for name, values in units._asdict().items()}
    entries = [
        {"id": unit, **{name: values[n] for name, values in columns.items()}}
        for n, unit in enumerate(unit_ids)
    ]
    times = {"tau_fix_ms": virtual_units.TAU_FIX_S * 1e3, "tau_sac_ms": virtual_units.TAU_SAC_S * 1e3}
    return {**times, "units": entries, "photographs": list(images.photograph)}
