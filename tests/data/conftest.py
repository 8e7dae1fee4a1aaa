"""Small sessions that every test of polarjax.data can make wrong in its own way."""

import functools

import numpy as np
import pytest

from polarjax.data.sessions import write_session

RATE_HZ = 120.0
TRIAL_FRAMES = 30
TRIALS = 6


def session_arrays(units=3, kind="frames", seed=0, trials=TRIALS, shape=(9, 7), fraction_valid=0.9):
    """Arrays of a session of `trials` trials; the last is the test tier, the one before it validation."""
    random = np.random.default_rng(seed)
    frames = trials * TRIAL_FRAMES
    tier = np.zeros(trials, np.uint8)
    tier[-2:] = 1, 2
    arrays = {
        "gaze": random.normal(0, 0.05, (frames, 2)).astype(np.float32),
        "spikes": random.poisson(0.5, (frames, units)).astype(np.uint8),
        "valid": random.random((frames, units)) < fraction_valid,
        "trial": np.repeat(np.arange(trials, dtype=np.int32), TRIAL_FRAMES),
        "tier": np.repeat(tier, TRIAL_FRAMES),
    }
    if kind == "frames":
        arrays["frames"] = random.integers(0, 256, (frames, *shape), dtype=np.uint8)
    else:
        arrays["scenes"] = random.integers(0, 256, (4, 41, 53), dtype=np.uint8)
        arrays["frame_index"] = random.integers(0, 4, frames).astype(np.int32)
    return arrays


def fields(name="alpha", units=3, kind="frames", shape=(9, 7)):
    """What write_session needs beside the arrays."""
    window = {"size": list(shape), "pixels_per_degree": 10.0} if kind == "scenes" else None
    return {
        "name": name,
        "subject": "nobody",
        "rate_hz": RATE_HZ,
        "pixels_per_degree": 10.0,
        "unit_ids": [f"{name}-{number}" for number in range(units)],
        "source": "random numbers",
        "window": window,
    }


@pytest.fixture
def make_session(tmp_path):
    """make_session(name, units=.., kind=.., **arrays to replace) -> folder; None removes an array."""

    def make(name="alpha", *, units=3, kind="frames", seed=0, shape=(9, 7), given=None, **replaced):
        arrays = session_arrays(units, kind, seed, shape=shape) | replaced
        arrays = {key: values for key, values in arrays.items() if values is not None}
        entries = fields(name, units, kind, shape) | (given or {})
        return write_session(tmp_path / name, arrays=arrays, **entries)

    return make


def data_section(sessions, cache, **changes):
    """Returns config.data as a dict; the virtual V1, where it is used, is kept in the folder `cache`."""
    virtual = {"seed": 0, "minutes": 1.0, "cache": str(cache), "gaze": ""} | changes.pop("virtual", {})
    return {
        "sessions": sessions if isinstance(sessions, str) else ",".join(map(str, sessions)),
        "virtual": virtual,
        "burn_in": 6,
        "predicted": 4,
        "batch_size": 8,
        "storage": "resident",
        "seed": 3,
        "session_weights": (),
        "equal_subjects": False,
        "contrast_weight": 0.0,
        "contrast_anneal": 0,
        "drop_silent": False,
        "ignore_spikes": False,
        "spike_fraction": 1.0,
    } | changes


@pytest.fixture
def section(tmp_path):
    """section(sessions, **changes) -> config.data as a dict."""
    return functools.partial(data_section, cache=tmp_path / "cache")
