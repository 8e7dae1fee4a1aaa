"""The twin of a trained run: rates for any movie, without data, config file or the devices of training."""

import dataclasses
import os
import shutil
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

import polarjax
from polarjax import systems
from polarjax.core import Batch, CheckpointError, ConfigError, DataInfo, SessionInfo
from polarjax.systems import polar

from .reports.fabricated import save_checkpoint

FRAME = (16, 18, 1)
UNITS = {"one": ("a", "b", "c"), "two": ("d", "e")}
FRAMES = 9


def made_info():
    sessions = tuple(
        SessionInfo(
            name, "nobody", units, (0.1,) * len(units), ((0.05, -0.1),) * len(units), "0" * 64, "/gone"
        )
        for name, units in UNITS.items()
    )
    return DataInfo(sessions, 120.0, 37.0, FRAME)


def made_config(**kwargs):
    small = {"n_levels": 2, "n_pairs": 2, "kernel_size": 3, "code_width": 8}
    config = ml_collections.ConfigDict(
        {"system": "polar", "seed": 0, "optim": {"bounds": {}}, "data": {"sessions": "/gone"}}
    )
    config.model = {"name": "polar_v1", "kwargs": {**small, **kwargs}}
    config.loss = polar.poisson_loss()
    if kwargs.get("zero_inflated"):
        config.loss.weights.update(poisson=0.0, zero_inflated_poisson=1.0)
    config.train = {"num_steps": 8, "best_metric": "eval/bits_per_spike"}
    return config


def made_movie(batch, seed=0):
    generator = np.random.default_rng(seed)
    stimulus = generator.integers(0, 256, (batch, FRAMES, *FRAME), dtype=np.uint8)
    gaze = np.cumsum(generator.normal(0, 0.02, (batch, FRAMES, 2)), axis=1).astype(np.float32)
    return stimulus, gaze


def normalized(stimulus):
    return ((stimulus.astype(np.float64) - 127) / 255).astype(np.float32)


def write_run(folder, **kwargs):
    config, info = made_config(**kwargs), made_info()
    stimulus, gaze = made_movie(4)
    empty = np.zeros((4, 3, info.max_units), np.float32)
    batch = Batch(normalized(stimulus), gaze, empty, empty)
    system = systems.build(config, info)
    variables = dict(jax.jit(system.init)(jax.random.key(1), batch))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) * 1.1 + 0.01, variables.pop("params"))
    state = jax.tree.map(np.asarray, variables)
    save_checkpoint(folder, config, info, params, steps=(5,), model_state=state)
    return system, params, state, batch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "workdir"
    return folder, *write_run(folder)


@pytest.fixture(scope="module")
def twin(run):
    return polarjax.load(run[0])


def test_it_knows_what_the_checkpoint_knows(run, twin):
    assert twin.unit_ids == UNITS
    assert twin.config.model.kwargs.n_pairs == 2
    assert twin.info.rate_hz == 120.0
    assert twin.step == 5
    jax.tree.map(np.testing.assert_array_equal, twin.params, run[2])
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(twin.params))


def test_a_session_without_units_is_listed_and_asking_for_its_rates_names_those_that_have_some(tmp_path):
    info = made_info()
    first = dataclasses.replace(info.sessions[0], unit_ids=(), mean_count=(), position_deg=())
    for name, sessions, said in (
        ("one", (first, info.sessions[1]), r"sessions with units: two$"),
        ("none", (first,), r"none, the run was trained without spikes.*--config\.init_from=.*none"),
    ):
        changed = dataclasses.replace(info, sessions=sessions)
        save_checkpoint(tmp_path / name, made_config(), changed, {"core": np.zeros(2)}, steps=(5,))
        twin = polarjax.load(tmp_path / name)
        assert twin.unit_ids["one"] == ()
        stimulus, gaze = made_movie(1)
        with pytest.raises(ConfigError, match="session 'one' has no units.*" + said):
            twin.predict(stimulus, gaze, "one")
        with pytest.raises(ConfigError, match="session 'one' has no units"):
            twin.stream("one")


def test_predict_equals_the_system_at_the_last_frame(run, twin):
    _, system, params, state, batch = run
    expected = np.exp(np.asarray(jax.jit(system.predict)(params, state, batch))[:, -1])
    for index, (session, units) in enumerate(UNITS.items()):
        ours = twin.predict(batch.stimulus[index::2], batch.gaze[index::2], session)
        assert ours.shape == (2, len(units))
        np.testing.assert_allclose(ours, expected[index::2, : len(units)], rtol=2e-5)


def test_bytes_and_normalized_luminance_are_the_same_stimulus(twin):
    stimulus, gaze = made_movie(2, seed=3)
    from_bytes = twin.predict(stimulus, gaze, "one")
    np.testing.assert_allclose(from_bytes, twin.predict(normalized(stimulus), gaze, "one"), rtol=1e-5)


def test_a_movie_in_two_pieces_equals_the_movie_in_one_and_ends_as_predicted(twin):
    stimulus, gaze = made_movie(1, seed=4)
    whole = twin.stream("two").step(stimulus[0], gaze[0])
    assert whole.shape == (FRAMES, 2)
    stream = twin.stream("two")
    pieces = [stream.step(stimulus[0, part], gaze[0, part]) for part in (slice(0, 4), slice(4, FRAMES))]
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=2e-5)
    np.testing.assert_allclose(twin.predict(stimulus, gaze, "two")[0], whole[-1], rtol=2e-5)


def test_a_twin_of_units_that_may_be_silent_predicts_their_mean_counts(tmp_path):
    system, params, state, batch = write_run(tmp_path / "silent", zero_inflated=True)
    twin = polarjax.load(tmp_path / "silent")
    expected = np.exp(np.asarray(jax.jit(system.predict)(params, state, batch))[:, -1])
    awake = {**params, "readout": {**params["readout"], "silence_logit": np.full((2, 3), -40.0, np.float32)}}
    rate = np.exp(np.asarray(jax.jit(system.predict)(awake, state, batch))[:, -1])
    silence = 1 / (1 + np.exp(-params["readout"]["silence_logit"]))
    for index, (session, units) in enumerate(UNITS.items()):
        movie = batch.stimulus[index::2], batch.gaze[index::2]
        ours = twin.predict(*movie, session)
        np.testing.assert_allclose(ours, expected[index::2, : len(units)], rtol=2e-5)
        mean = (1 - silence[index, : len(units)]) * rate[index::2, : len(units)]
        np.testing.assert_allclose(ours, mean, rtol=2e-5)
        np.testing.assert_allclose(
            twin.stream(session).step(movie[0][0], movie[1][0])[-1], ours[0], rtol=2e-5
        )


def test_two_streams_do_not_share_their_state(twin):
    stimulus, gaze = made_movie(2, seed=5)
    first, second = twin.stream("one"), twin.stream("one")
    alone = first.step(stimulus[0], gaze[0])
    second.step(stimulus[1], gaze[1])
    np.testing.assert_array_equal(twin.stream("one").step(stimulus[0], gaze[0]), alone)


def test_missing_gaze_is_an_error_that_names_what_needs_it(twin):
    stimulus, _ = made_movie(1)
    with pytest.raises(
        ConfigError,
        match=r"gaze is missing: the rates of model polar_v1 .*degrees.*\[B, T, 2\] = \(1, 9, 2\)",
    ):
        twin.predict(stimulus, None, "one")
    with pytest.raises(ConfigError, match="gaze is missing"):
        twin.stream("one").step(stimulus[0], None)


def test_a_model_without_gaze_asks_for_none(tmp_path):
    write_run(tmp_path / "blind", gaze="none")
    blind = polarjax.load(tmp_path / "blind")
    stimulus, gaze = made_movie(2)
    without = blind.predict(stimulus, None, "one")
    np.testing.assert_array_equal(without, blind.predict(stimulus, gaze, "one"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, g: (s[0], g), r"stimulus has shape \(9, 16, 18, 1\), expected \[B, T, 16, 18, 1\]"),
        (lambda s, g: (s[:, :, :15], g), r"stimulus has shape \(2, 9, 15, 18, 1\)"),
        (lambda s, g: (s[:, :0], g), r"stimulus has shape \(2, 0, 16, 18, 1\)"),
        (lambda s, g: (s, g[..., :1]), r"gaze has shape \(2, 9, 1\), expected \[B, T, 2\] = \(2, 9, 2\)"),
        (lambda s, g: (s, g[:, :-1]), r"gaze has shape \(2, 8, 2\)"),
        (lambda s, g: (s, np.full_like(g, np.nan)), "gaze holds NaN"),
        (lambda s, g: (s.astype(np.float32), g), r"stimulus spans 0 to 255, expected .*\[-1\.5, 1\.5\]"),
        (lambda s, g: (np.full(s.shape, np.nan), g), "stimulus spans nan to nan"),
    ],
)
def test_a_wrong_input_is_named(twin, change, message):
    with pytest.raises(ConfigError, match=message):
        twin.predict(*change(*made_movie(2)), "one")


def test_a_failed_piece_leaves_the_stream_as_it_was(twin):
    stimulus, gaze = made_movie(1, seed=6)
    stream = twin.stream("one")
    with pytest.raises(ConfigError, match="gaze has shape"):
        stream.step(stimulus[0], gaze[0, :3])
    np.testing.assert_array_equal(
        stream.step(stimulus[0], gaze[0]), twin.stream("one").step(stimulus[0], gaze[0])
    )


def test_an_unknown_session_gets_the_nearest_name(twin):
    with pytest.raises(ConfigError, match=r"no session 'tow'; did you mean 'two'\?"):
        twin.stream("tow")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent does not exist"):
        polarjax.load(tmp_path / "absent")


def test_it_opens_elsewhere_on_one_device(run, twin, tmp_path):
    copy = tmp_path / "copied"
    shutil.copytree(run[0], copy)
    stimulus, gaze = made_movie(1, seed=7)
    np.savez(tmp_path / "movie.npz", stimulus=stimulus, gaze=gaze)
    program = (
        "import jax, numpy as np, polarjax; assert jax.device_count() == 1; movie = np.load('movie.npz'); "
        "np.save('rates.npy', polarjax.load('copied').predict(movie['stimulus'], movie['gaze'], 'one'))"
    )
    root = os.path.dirname(os.path.dirname(polarjax.__file__))
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=180)
    np.testing.assert_allclose(
        np.load(tmp_path / "rates.npy"), twin.predict(stimulus, gaze, "one"), rtol=2e-5
    )
