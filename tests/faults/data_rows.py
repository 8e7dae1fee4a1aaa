"""Data that are wrong: rows of (id, action, exit code, message)."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from configs import polar
from polarjax import losses, metrics, systems
from polarjax.data import streamed
from polarjax.data.sessions import find_sessions, open_session
from polarjax.ops import laplacian_pyramid
from tests.data.conftest import session_arrays
from tests.faults.place import ALL_VALID


def changed(name, change, kind=None):
    values = session_arrays()[name]
    values = values if kind is None else values.astype(kind)
    change(values)
    return values


def set_to(rows, value):
    def change(values):
        values[rows] = value

    return change


def spoiled_frames(place):
    return place.write(frames=changed("frames", set_to((61, 2, 3), np.nan), np.float32), valid=ALL_VALID)


def masked_frames(place):
    valid = ALL_VALID.copy()
    valid[61:63] = False
    frames = changed("frames", set_to((slice(61, 63), 2, 3), np.nan), np.float32)
    return place.notes(frames=frames, valid=valid)


def blink(place):
    valid = ALL_VALID.copy()
    valid[40:43] = False
    return place.notes(gaze=changed("gaze", set_to(slice(40, 43), np.nan)), valid=valid)


def silent_in_validation(place):
    counts = np.ones((40, 2))
    counts[:, 1] = 0
    return metrics.bits_per_spike(np.full((40, 2), 0.9), counts, np.ones((40, 2))).round(2).tolist()


def uint8_frames(place):
    frames = session_arrays()["frames"]
    frames[:] = 0
    built = place.build(place.write(frames=frames))
    return np.unique(np.asarray(built.fetch(built.resident, built.train(0)).stimulus)).round(2).tolist()


def two_ranges(place):
    place.write("alpha")
    frames = session_arrays()["frames"].astype(np.float32) / 255
    return place.build(place.folder / "alpha", place.write("beta", frames=frames))


def levels(place):
    config = polar.get_config("quick")
    config.model.kwargs.n_levels = 4
    built = place.build(place.write())
    batch = built.fetch(built.resident, built.train(0))
    return jax.eval_shape(systems.build(config, built.info).init, jax.random.key(0), batch)


def odd_sizes(place):
    image = jax.random.normal(jax.random.key(0), (1, 51, 51, 1))
    parts = laplacian_pyramid.laplacian_pyramid(image, 3, normalized=True)
    return bool(jnp.allclose(laplacian_pyramid.reconstruct(parts, normalized=True), image, atol=1e-5))


def masked_batch(place):
    zeros = jnp.zeros((2, 3))
    value, gradient = jax.value_and_grad(losses.poisson_nll)(zeros, zeros * jnp.nan, zeros)
    return float(value), float(jnp.abs(gradient).max())


def starts(place):
    built = place.build(place.write())
    requests = [built.train(step) for step in range(20)]
    trial = session_arrays()["trial"]
    first = np.concatenate([request["start"] for request in requests])
    return first.min() >= 0 and (trial[first] == trial[first + 9]).all()


def two_of_one_name(place):
    (place.folder / "more").mkdir()
    place.write("alpha")
    place.write("more/alpha", given={"name": "alpha"})
    return find_sessions(f"{place.folder / 'alpha'},{place.folder / 'more'}")


def flipped(place):
    path = place.write() / "spikes.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return open_session(path.parent)


def rewritten(content):
    def action(place):
        path = place.write() / "spikes.npy"
        path.write_bytes(path.read_bytes()[:-100] if content is None else content)
        return open_session(path.parent)

    return action


def vanished(place):
    pauses, reads = [], []

    def refuse(*arguments):
        reads.append(arguments)
        raise OSError(116, "Stale file handle", "spikes.npy")

    built = place.build(place.write(), storage="streamed")
    place.monkeypatch.setattr(streamed, "STEPS_AHEAD", 0)
    place.monkeypatch.setattr(streamed, "THREADS", 0)
    place.monkeypatch.setattr(streamed.time, "sleep", pauses.append)
    place.monkeypatch.setattr(streamed, "read_segment", refuse)
    try:
        return built.train(0)
    finally:
        built.close()
        assert len(reads) == streamed.ATTEMPTS == 3
        assert pauses == [streamed.PAUSE_S, 2 * streamed.PAUSE_S]


def one_rate(place):
    return place.build(place.write("alpha"), place.write("beta", given={"rate_hz": 118.0}))


ROWS = [
    (
        "D1",
        spoiled_frames,
        3,
        r"alpha: frames\.npy: 1 frames of valid bins are not finite, first at frame 61",
    ),
    (
        "D1 masked",
        masked_frames,
        0,
        r"^2 of 180 frames of non-finite stimulus, in invalid bins, are held at the last finite one$",
    ),
    ("D2", blink, 0, r"^3 of 180 frames of non-finite gaze, in invalid bins, are held"),
    (
        "D3",
        lambda at: at.notes(gaze=changed("gaze", set_to(slice(50, 60), 0.0)), valid=ALL_VALID),
        0,
        r"^9 frames of valid bins \(5\.0%\) repeat .* first at frame 51 with \(0, 0\)",
    ),
    (
        "D4",
        lambda at: at.write(gaze=np.zeros((180, 3))),
        3,
        r"gaze\.npy: shape is \(180, 3\), expected \(180, 2\).*pupil size: select gaze\[:, :2\]",
    ),
    ("D5", lambda at: at.write(gaze=np.zeros((2, 180))), 3, r"gaze\.npy: shape is \(2, 180\).*write gaze\.T"),
    (
        "D6",
        lambda at: at.write(frames=np.zeros((179, 9, 7), np.uint8)),
        3,
        r"frames\.npy: has 179 frames, spikes\.npy has 180",
    ),
    (
        "D7",
        lambda at: at.write(spikes=np.zeros(180, np.uint8)),
        3,
        r"spikes\.npy: shape is \(180,\).*\[T, 1\]",
    ),
    (
        "D8",
        lambda at: at.notes(spikes=changed("spikes", set_to((slice(None), 1), 0))),
        0,
        r"^1 of 3 units without a spike: alpha-1$",
    ),
    ("D9", silent_in_validation, 0, r"^\[-?\d\.\d+, nan\]$"),
    (
        "D10",
        lambda at: at.write(spikes=changed("spikes", set_to((77, 2), -1), np.float32), valid=ALL_VALID),
        3,
        r"alpha: spikes\.npy: count -1 of unit column 2 at frame 77 is negative",
    ),
    (
        "D11",
        lambda at: at.write(spikes=changed("spikes", set_to((77, 2), 0.5), np.float32), valid=ALL_VALID),
        3,
        r"count 0\.5 of unit column 2 at frame 77 is not whole",
    ),
    (
        "D12",
        lambda at: at.notes(spikes=changed("spikes", set_to((3, 0), 50)), valid=ALL_VALID),
        0,
        r"^50 spikes in a bin of 8\.33 ms is 6000 spikes/s; check rate_hz$",
    ),
    ("D13", uint8_frames, 0, r"^\[-0\.5\]$"),
    ("D14", two_ranges, 3, r"beta: frames\.npy: values run from 0 to 1, expected 0\.\.255.*factor of 255"),
    (
        "D15",
        lambda at: at.write(trial=changed("trial", set_to(5, 2**40), np.int64)),
        3,
        r"trial\.npy: value 1099511627776 at \[5\] does not fit int32",
    ),
    ("D16", lambda at: at.build(at.write()).info.frame_shape, 0, r"^\(9, 7, 1\)$"),
    ("D17", levels, 2, r"A frame of 9 x 7 pixels supports at most \d pyramid levels, got 4"),
    ("D18", odd_sizes, 0, "True"),
    (
        "D20",
        lambda at: at.build(at.write(), burn_in=40),
        3,
        r"session alpha has a longest trial of 30 frames, burn_in \+ predicted is 40 \+ 4 = 44",
    ),
    (
        "D21",
        lambda at: at.build(at.write(tier=np.ones(180, np.uint8))),
        3,
        r"alpha: 0 segments of 10 frames remain for training, out of 180 frames:\n +54 starts removed",
    ),
    ("D22", masked_batch, 0, r"^\(0\.0, 0\.0\)$"),
    ("D23 D24", starts, 0, "True"),
    ("D25", two_of_one_name, 3, r"two sessions have the name 'alpha': .*alpha and .*more/alpha"),
    ("D26", lambda at: at.write(given={"name": "../x"}), 3, r"name is '\.\./x'; allowed are letters"),
    (
        "D27",
        lambda at: at.write(given={"unit_ids": ["a", "b", "a"]}),
        3,
        r"session\.json: unit_ids holds a more than once",
    ),
    (
        "D28",
        lambda at: at.write(trial=changed("trial", set_to(slice(60, 90), 0))),
        3,
        r"trial\.npy: trial 0 comes back at frame 60",
    ),
    (
        "D28 order",
        lambda at: at.write(timestamps=np.arange(180)[::-1] / 120.0),
        3,
        r"timestamps\.npy: 179 steps are not above 0, first from .* at frame 1",
    ),
    (
        "D28 gap",
        lambda at: at.write(timestamps=np.arange(180) / 120.0 + (np.arange(180) >= 40)),
        3,
        r"timestamps\.npy: 1 gaps inside trials, first 1008 ms before frame 40 of trial 1,.*Start a new trial there",
    ),
    ("D29", one_rate, 3, r"alpha and beta differ in rate_hz: 120\.0 and 118\.0"),
    (
        "D30",
        lambda at: at.write(gaze=session_arrays()["gaze"] * np.float32(10)),
        3,
        r"gaze\.npy: the median speed is [\d.]+ deg/s as stored, and .* if the values are pixels",
    ),
    (
        "D30 slow",
        lambda at: at.write(gaze=session_arrays()["gaze"] * np.float32(1e-3)),
        3,
        r"gaze\.npy: the median speed is 0\.0\d+ deg/s as stored, and .* if the values are radians",
    ),
    ("D30 rest", lambda at: at.notes(gaze=np.zeros((180, 2), np.float32)), 0, "^$"),
    ("D31", flipped, 3, r"spikes\.npy: sha256 is .*session\.json says"),
    (
        "D31 truncated",
        rewritten(None),
        3,
        r"spikes\.npy: 568 bytes, but shape \(180, 3\) of uint8 needs 668",
    ),
    ("D31 magic", rewritten(b"PK"), 3, r"spikes\.npy: is not a NumPy array file"),
    (
        "D32",
        vanished,
        3,
        rf"^session alpha cannot be read any more, at frames \d+ to \d+ as user {os.getuid()}: .*Stale file handle: "
        r"'spikes\.npy' \(.*/alpha\)\. Make the folder readable for this user, .* run the same line again$",
    ),
]
