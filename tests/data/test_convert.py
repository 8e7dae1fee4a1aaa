from pathlib import Path

import jax
import numpy as np
import pytest

from polarjax import data
from polarjax.core import ConfigError, DataError
from polarjax.data.convert import image_counts, main, tiers_by_movie
from polarjax.data.sessions import open_session

REAL = Path(__file__).parents[3] / "shared" / "data" / "macaque_v1_image_sequences.npz"


@pytest.fixture
def archive(tmp_path):
    """Twelve images of six movies, two recordings, some counts missing."""
    random = np.random.default_rng(0)
    counts = random.poisson(2.0, (12, 4, 3)).astype(np.uint8)
    counts[:, 1, 2] = 255
    counts[3, 2] = 255
    file = tmp_path / "images.npz"
    np.savez_compressed(
        file,
        images=random.integers(0, 256, (12, 16, 20), dtype=np.uint8),
        movie=np.repeat(np.arange(6, dtype=np.uint8), 2),
        recordings=np.array(["ay4_u006", "ay3_u002"]),
        counts_ay4_u006=counts,
        counts_ay3_u002=counts[:, :2, :2],
    )
    return file


def test_a_presentation_becomes_a_trial_of_grey_and_image_whose_last_bin_counts(archive, tmp_path):
    (folder,) = image_counts(archive, "ay4_u006", tmp_path / "out")
    session, content = open_session(folder), np.load(archive)
    counts, images = content["counts_ay4_u006"], content["images"]
    assert (session.name, session.subject, session.rate_hz, session.spikes.shape) == (
        "ay4_u006",
        "ay4",
        120.0,
        (47 * 36, 3),
    )
    assert np.load(folder / "frames.npy").shape == (13, 16, 20)
    seen = []
    for trial in range(47):
        frames = slice(trial * 36, trial * 36 + 36)
        last = trial * 36 + 35
        image = session.repeat[last]
        assert (session.repeat[frames][:-1] == -1).all() and not session.valid[frames][:-1].any()
        shown = session.movie[session.frame_index[frames]][..., 0]
        assert (shown[:12] == round(images.mean())).all() and (shown[12:] == images[image]).all()
        seen.append((image, tuple(np.where(session.valid[last], session.spikes[last], 255).tolist())))
    wanted = [(i, tuple(counts[i, r].tolist())) for r in range(4) for i in range(12) if (i, r) != (3, 2)]
    assert seen == wanted
    assert not session.gaze.any()


def test_tiers_are_split_by_movie(archive, tmp_path):
    (folder,) = image_counts(archive, "ay3_u002", tmp_path / "out", folds=3, fold=2)
    session = open_session(folder)
    for image in range(12):
        tiers = set(session.tier[session.repeat == image].tolist())
        assert tiers == {{2: 2, 0: 1, 1: 0}[image // 2 % 3]}
    assert session.source.endswith("validation movies [0, 3], test movies [2, 5]")


def test_every_movie_is_tested_in_one_fold_and_never_trained_on_beside():
    movie = np.repeat(np.arange(10), 4)
    tested = [np.unique(movie[tiers_by_movie(movie, 5, fold) == 2]).tolist() for fold in range(5)]
    assert sorted(sum(tested, [])) == list(range(10))
    for fold in range(10):
        tier = tiers_by_movie(movie, 10, fold)
        assert [np.unique(movie[tier == value]).tolist() for value in (1, 2)] == [[(fold + 1) % 10], [fold]]


def test_test_movies_may_be_named(archive, tmp_path):
    tier = tiers_by_movie(np.repeat(np.arange(6), 2), 5, 0, [5, 1])
    assert tier[::2].tolist() == [1, 2, 1, 0, 0, 2]


def test_without_a_validation_tier_its_movies_are_trained(archive, tmp_path):
    (folder,) = image_counts(archive, "ay3_u002", tmp_path / "out", test_movies=[3], validation=False)
    session = open_session(folder)
    assert set(np.unique(session.tier)) == {0, 2}
    assert set(session.repeat[(session.tier == 2) & (session.repeat >= 0)]) == {6, 7}
    assert (
        main(
            [
                "image_counts",
                str(archive),
                "--recording",
                "ay3_u002",
                "--out",
                str(tmp_path / "b"),
                "--no-validation",
            ]
        )
        == 0
    )
    assert 1 not in open_session(tmp_path / "b" / "ay3_u002").tier


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recording", "ay4_u06"], "--recording 'ay4_u06' is not in .*did you mean 'ay4_u006'"),
        (
            ["--recording", "ay4_u006", "--fold", "5"],
            "--folds 5 --fold 5: allowed are 3..6 folds of 6 movies",
        ),
        (["--recording", "ay4_u006", "--folds", "2"], "--folds 2 --fold 0: allowed are 3..6"),
        (
            ["--recording", "all", "--test-movies", "9"],
            r"--test-movies names \[9\]; the movies of the file are",
        ),
        (["--recording", "all", "--test-movies", "a"], "--test-movies is 'a'; expected numbers"),
        (["--recording", "all", "--test-movies", "0,1,2"], "leave none of"),
    ],
)
def test_a_wrong_flag_is_an_error_in_one_line(archive, tmp_path, capsys, arguments, message):
    assert main(["image_counts", str(archive), "--out", str(tmp_path / "out"), *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(text)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_content_and_a_missing_file_are_named(archive, tmp_path, capsys):
    with pytest.raises(DataError, match=r"--out .* exists and is not an empty folder"):
        image_counts(archive, "ay4_u006", tmp_path)
    with pytest.raises(DataError, match=r"nothing.npz does not exist"):
        image_counts(tmp_path / "nothing.npz", "all", tmp_path / "out")
    assert main(["image_counts", "nothing.npz", "--recording", "all", "--out", str(tmp_path / "o")]) == 3
    assert "nothing.npz does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"movie": None}, "lacks movie; it holds counts_ay3_u002, counts_ay4_u006, images, recordings"),
        ({"images": np.zeros((12, 4, 4))}, r"images is float64 \(12, 4, 4\)"),
        ({"counts_ay4_u006": None}, r"counts_ay4_u006 is missing; expected uint8 \[12, repeats, units\]"),
        ({"counts_ay4_u006": np.zeros((9, 2, 2), np.uint8)}, r"counts_ay4_u006 is uint8 \(9, 2, 2\)"),
        ({"counts_ay4_u006": np.full((12, 2, 2), 255, np.uint8)}, "holds no count, all values are 255"),
    ],
)
def test_an_archive_of_another_layout_is_named(archive, tmp_path, changes, message):
    content = dict(np.load(archive)) | changes
    np.savez(archive, **{name: values for name, values in content.items() if values is not None})
    with pytest.raises(DataError, match=message):
        image_counts(archive, "ay4_u006", tmp_path / "out")


def test_a_file_that_is_no_archive_is_named(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DataError, match=r"images.npz cannot be read as .npz"):
        image_counts(archive, "ay4_u006", tmp_path / "out")


def test_all_recordings_train_together(archive, tmp_path, section, capsys):
    out = tmp_path / "out"
    assert main(["image_counts", str(archive), "--recording", "all", "--out", str(out)]) == 0
    assert "ay4_u006: 3 units; " in capsys.readouterr().out
    built = data.build(section(str(out), burn_in=35, predicted=1, batch_size=4))
    batch = jax.jit(built.fetch)(built.resident, built.train(0))
    assert [session.name for session in built.info.sessions] == ["ay3_u002", "ay4_u006"]
    assert (np.asarray(batch.valid).sum(axis=(1, 2)) > 0).all()
    assert np.ptp(batch.stimulus[:, :12]) == 0 and np.ptp(batch.stimulus[:, 12:]) > 0


@pytest.mark.skipif(
    not REAL.exists(), reason="an addition to the synthetic file where the real one is at hand"
)
def test_the_real_file_converts_and_positions_are_found(tmp_path):
    (folder,) = image_counts(REAL, "ay2_u007", tmp_path / "out")
    session = open_session(folder)
    content = np.load(REAL)
    counts = content["counts_ay2_u007"]
    assert int(session.spikes.sum(dtype=np.int64)) == int(counts[counts != 255].sum(dtype=np.int64))
    assert int(session.valid.sum()) == int((counts != 255).sum())
    for image in (0, 57, 399):
        rows = session.repeat == image
        trials = counts[image][(counts[image] != 255).any(axis=1)]
        np.testing.assert_array_equal(np.where(session.valid[rows], session.spikes[rows], 255), trials)
