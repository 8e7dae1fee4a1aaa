import json
import pathlib
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from polarjax.core import CheckpointError
from polarjax.engine import archive, checkpoints
from polarjax.engine.state import TrainState, flatten

FROZEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_format_1"
META = {
    "config": {"train": {"best_metric": "score"}},
    "info": {},
    "versions": {},
    "git_commit": "",
    "metrics": {"score": 1.0},
    "tally": {},
}


def make_state(step):
    generator = np.random.default_rng(step)
    return TrainState(
        step=np.asarray(step, np.int32),
        params={"core": {"kernel": generator.standard_normal((40, 30)).astype(np.float32)}},
        target_params=None,
        model_state={"stats": {"mean": np.ones(4, np.float16)}},
        opt_state=({"mu": np.zeros(3, np.float32)}, np.asarray(7, np.int32)),
        rng=np.asarray([1, 2], np.uint32),
    )


def make_frozen_state():
    """Returns the state in FROZEN, which was written once and stays as it is, whatever writes checkpoints later."""
    kernel = np.arange(48, dtype=np.float32).reshape(6, 8) / 7
    return TrainState(
        step=np.asarray(3, np.int32),
        params={"core": {"kernel": kernel, "half": kernel[0].astype(jnp.bfloat16)}},
        target_params={"core": {"kernel": kernel + 1}},
        model_state={"batch_stats": {"mean": np.ones(4, np.float16)}},
        opt_state={"0": {"mu": np.zeros((6, 8), np.float32)}, "1": np.asarray(7, np.int32)},
        rng=np.asarray([1, 2], np.uint32),
    )


def open_saver(workdir, **keep):
    return checkpoints.Checkpoints(
        workdir, **{"keep_latest": 1, "keep_best": 0, "best_metric": "score", **keep}
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    with open_saver(workdir, keep_latest=5) as saver:
        for step in (1, 2):
            saver.save(make_state(step), META)
    return workdir


def test_a_checkpoint_comes_back_bit_by_bit_as_numpy_arrays(saved):
    state, meta = checkpoints.restore(saved)
    assert meta["step"] == 2 and meta["format_version"] == 1
    assert isinstance(state, TrainState) and state.target_params is None
    for path, leaf in flatten(make_state(2)).items():
        restored = flatten(state)[path]
        assert type(restored) is np.ndarray and restored.dtype == leaf.dtype
        np.testing.assert_array_equal(restored, leaf)


def test_leaving_by_an_exception_loses_no_checkpoint(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        open_saver(tmp_path) as saver,
    ):
        saver.save(make_state(5), META)
        raise KeyboardInterrupt
    assert checkpoints.restore(tmp_path)[1]["step"] == 5


def test_a_step_is_chosen_by_number_by_name_or_refused(saved, tmp_path):
    assert checkpoints.restore(saved, 1)[1]["step"] == 1
    assert checkpoints.restore(saved, "latest")[1]["step"] == 2
    assert checkpoints.restore(saved, "best")[1]["step"] == 2
    with pytest.raises(CheckpointError, match=r"holds no checkpoint of step 7; it has 1, 2"):
        checkpoints.restore(saved, 7)
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; is it the --workdir of a run\?"):
        checkpoints.restore(tmp_path)


def test_no_damage_of_any_file_is_silent(saved, tmp_path):
    want = flatten(make_state(2))
    generator = random.Random(0)
    files = sorted(f.relative_to(saved) for f in (saved / "checkpoints" / "2").rglob("*") if f.is_file())
    found = 0
    for index, path in enumerate([*files, *files, *files]):
        workdir = tmp_path / str(index)
        shutil.copytree(saved, workdir)
        content = bytearray((workdir / path).read_bytes())
        if index < len(files):
            del content[len(content) // 2 :]
        elif content:
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (workdir / path).write_bytes(content)
        try:
            state, _ = checkpoints.restore(workdir, 2)
        except CheckpointError as error:
            assert "checkpoints/2: step 2 is damaged" in str(error)
            found += 1
        else:
            for name, leaf in flatten(state).items():
                np.testing.assert_array_equal(leaf, want[name])
    assert found >= 10


def test_a_deleted_array_file_is_damage_and_the_step_before_is_found(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2" / "state" / "d")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2" / "state" / "ocdbt.process_0")
    found, warnings = checkpoints.latest_intact(tmp_path / "run")
    assert found[1]["step"] == 1
    assert len(warnings) == 1 and "step 2 is damaged, its arrays are unreadable" in warnings[0]
    assert checkpoints.list_steps(tmp_path / "run") == [1]


@pytest.mark.parametrize(("shape", "parts"), [(10**13, 40), (40, 10**13), (10**7, 1)])
def test_a_shape_that_the_files_cannot_hold_is_damage(saved, tmp_path, shape, parts):
    shutil.copytree(saved, tmp_path / "run")
    base = {"driver": "file", "path": f"{tmp_path}/run/checkpoints/2/state/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    key = "params.core.kernel/.zarray"
    described = json.loads(store.read(key).result().value)
    described |= {"shape": [shape, 30], "chunks": [parts, 30]}
    store.write(key, json.dumps(described)).result()
    with pytest.raises(
        CheckpointError, match=rf"step 2 is damaged, .*kernel in .*a shape of \[{shape}, 30\]"
    ):
        checkpoints.restore(tmp_path / "run", 2)


def test_an_array_of_equal_values_much_larger_than_its_files_is_read(tmp_path):
    state = make_state(1).replace(params={"zeros": np.zeros((4000, 4000), np.float32)})
    with open_saver(tmp_path) as saver:
        saver.save(state, META)
    restored, _ = checkpoints.restore(tmp_path)
    assert not restored.params["zeros"].any() and restored.params["zeros"].shape == (4000, 4000)


def test_a_checkpoint_of_the_first_format_is_still_restored():
    state, meta = checkpoints.restore(FROZEN)
    assert meta["format_version"] == 1 and meta["step"] == 3 and meta["metrics"] == {"score": 0.5}
    assert archive.best_step(FROZEN) == 3
    want = flatten(make_frozen_state())
    leaves = flatten(state)
    assert leaves.keys() == want.keys()
    for path, leaf in want.items():
        assert leaves[path].dtype == leaf.dtype
        np.testing.assert_array_equal(leaves[path], leaf)


def test_a_checkpoint_of_another_format_is_refused_and_left_where_it_is(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["digest"]
    meta["format_version"] = 99
    path.write_text(json.dumps({**meta, "digest": archive.digest_of_json(meta)}))
    with pytest.raises(CheckpointError, match=r"has format version 99, this program reads 1"):
        checkpoints.latest_intact(tmp_path / "run")
    assert checkpoints.list_steps(tmp_path / "run") == [1, 2]


def test_what_a_killed_save_left_behind_is_swept(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "run" / "checkpoints" / ".trash" / "0").mkdir(parents=True)
    with open_saver(tmp_path / "run", keep_latest=5):
        pass
    assert checkpoints.list_steps(tmp_path / "run") == [1, 2]
    assert not list((tmp_path / "run" / "checkpoints" / ".trash").iterdir())
    assert not list((tmp_path / "run" / "checkpoints").glob("*tmp*"))


def ranked(score):
    return {**META, "metrics": {"score": score}}


def test_the_newest_and_the_best_stay_and_of_equal_ones_the_newer(tmp_path):
    with open_saver(tmp_path, keep_latest=2, keep_best=1) as saver:
        for step, score in enumerate([0.5, 0.5, 0.25, float("nan"), 0.0]):
            saver.save(make_state(step), ranked(score))
    assert checkpoints.list_steps(tmp_path) == [1, 3, 4]
    assert not list((tmp_path / "checkpoints" / ".trash").iterdir())


def test_a_checkpoint_is_on_the_disk_before_the_one_that_it_replaces_is_removed(tmp_path, monkeypatch):
    synced = []

    def sync(folder):
        assert checkpoints.list_steps(tmp_path)[0] == 1
        synced.append(folder.name)
        if synced[-1] == "2":
            raise OSError(5, "Input/output error")

    with open_saver(tmp_path) as saver:
        saver.save(make_state(1), META, wait=True)
        monkeypatch.setattr(checkpoints, "sync_folder", sync)
        with pytest.raises(CheckpointError, match="Input/output error"):
            saver.save(make_state(2), META, wait=True)
        assert synced[0].startswith("2.orbax-checkpoint-tmp") and synced[1:] == ["2"]
    assert checkpoints.list_steps(tmp_path) == [1, 2]


def test_saving_a_step_again_replaces_its_meta_and_touches_no_array(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    arrays = tmp_path / "run" / "checkpoints" / "2" / "state"
    before = {path: path.stat().st_ino for path in arrays.rglob("*")}
    with open_saver(tmp_path / "run", keep_latest=2) as saver:
        saver.save(make_state(2), ranked(0.5), wait=True)
    assert {path: path.stat().st_ino for path in arrays.rglob("*")} == before
    assert checkpoints.restore(tmp_path / "run")[1]["metrics"] == {"score": 0.5}
    assert checkpoints.list_steps(tmp_path / "run") == [1, 2]


def test_a_kill_while_a_step_is_saved_again_leaves_what_was_saved(saved, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    shutil.copytree(saved, tmp_path / "run")
    monkeypatch.setattr(archive.os, "replace", kill)
    with pytest.raises(Killed), open_saver(tmp_path / "run") as saver:
        saver.save(make_state(2), ranked(0.5), wait=True)
    assert checkpoints.restore(tmp_path / "run", 2)[1]["metrics"] == {"score": 1.0}


def test_an_array_that_the_model_lacks_is_named(saved):
    state, _ = checkpoints.restore(saved)
    with pytest.raises(CheckpointError, match=r"the checkpoint has params/core/kernel and the model has not"):
        checkpoints.match_state(state, state.replace(params={}))
    with pytest.raises(CheckpointError, match=r"the model has params/more and the checkpoint has not"):
        checkpoints.match_state(state, state.replace(params={**state.params, "more": np.ones(1)}))
    other = {"core": {"kernel": np.ones((40, 30), np.float64)}}
    with pytest.raises(
        CheckpointError, match=r"kernel is float32\[40, 30\] in the checkpoint and float64\[40, 30\]"
    ):
        checkpoints.match_state(state, state.replace(params=other))
