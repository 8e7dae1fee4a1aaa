"""Resident and streamed storage against each other and against the arrays of the sessions."""

import jax
import numpy as np
import pytest

from polarjax import data
from polarjax.core import DataError
from polarjax.data import streamed

from .conftest import session_arrays


@pytest.fixture
def mixed(make_session):
    """Scenes, windows as bytes and windows as floats; different units; one column of valid; blinks; missing counts."""
    gaze = session_arrays(seed=1)["gaze"]
    gaze[50:55] = np.nan
    valid = np.ones((180, 1), bool)
    valid[50:55] = False
    spikes = session_arrays(seed=1, units=5)["spikes"].astype(np.float32)
    spikes[51] = np.nan
    return [
        make_session("alpha", kind="scenes"),
        make_session("beta", units=5, seed=1, gaze=gaze, valid=valid, spikes=spikes),
        make_session("gamma", units=2, seed=2, frames=session_arrays(seed=2)["frames"].astype(np.float32)),
    ]


def batches(built, steps, tier=None, batch_size=6):
    fetch = jax.jit(built.fetch)
    requests = (
        built.evaluation(tier, batch_size) if tier is not None else (built.train(step) for step in steps)
    )
    return [jax.device_get(fetch(built.resident, request)) for request in requests]


def assert_same_bits(some, others):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        for values, copies in zip(one, other, strict=True):
            assert (values.shape, values.dtype) == (copies.shape, np.float32)
            np.testing.assert_array_equal(values.view(np.uint32), copies.view(np.uint32))


def test_resident_and_streamed_batches_are_equal_bit_for_bit(mixed, section):
    resident = data.build(section(mixed, batch_size=6))
    stream = data.build(section(mixed, batch_size=6, storage="streamed"))
    assert_same_bits(batches(resident, range(5)), batches(stream, range(5)))
    assert_same_bits(batches(resident, [], tier=2), batches(stream, [], tier=2))
    assert stream.resident == ()
    stream.close()


def test_a_streamed_run_starts_at_any_step_and_jumps(mixed, section):
    stream = data.build(section(mixed, batch_size=6, storage="streamed"))
    straight = batches(stream, range(4))
    assert_same_bits(batches(stream, [2, 3, 0, 2]), [straight[step] for step in (2, 3, 0, 2)])
    stream.close()


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_batches_hold_what_the_arrays_hold_oldest_frame_first(mixed, section, storage):
    built = data.build(section(mixed, batch_size=6, storage=storage))
    plain = data.build(section(mixed, batch_size=6))
    request, batch = plain.train(7), batches(built, [7])[0]
    assert batch.stimulus.shape == (6, 10, 9, 7, 1)
    for example in (1, 2, 4, 5):
        session = built.sessions[example % 3]
        frames = slice(request["start"][example], request["start"][example] + 10)
        bins = slice(request["start"][example] + 6, request["start"][example] + 10)
        units = len(session.unit_ids)
        movie = np.asarray(session.movie[session.frame_index[frames]], np.float32)
        np.testing.assert_allclose(batch.stimulus[example], (movie - 127) / 255, atol=1e-6)
        np.testing.assert_array_equal(batch.gaze[example], session.gaze[frames])
        valid = np.broadcast_to(session.valid[bins], (4, units))
        np.testing.assert_array_equal(batch.valid[example, :, :units], valid)
        np.testing.assert_array_equal(
            batch.spikes[example, :, :units], np.where(valid, session.spikes[bins], 0)
        )
    built.close()


def test_units_that_pad_a_session_have_no_spikes_and_are_not_valid(mixed, section):
    batch = batches(data.build(section(mixed, batch_size=6)), [0])[0]
    assert batch.spikes.shape == (6, 4, 5)
    assert not batch.valid[0::3, :, 3:].any() and not batch.spikes[0::3, :, 3:].any()
    assert not batch.valid[2::3, :, 2:].any() and not batch.spikes[2::3, :, 2:].any()
    assert all(np.isfinite(values).all() for values in batch)


def test_scenes_and_windows_cut_before_give_the_same_batches(make_session, section):
    arrays = session_arrays(kind="scenes")
    scenes = make_session("alpha", kind="scenes")
    built = data.build(section([scenes], batch_size=4))
    from .test_retina import windows_pixel_by_pixel

    window = built.sessions[0].window
    cut = [
        windows_pixel_by_pixel(arrays["scenes"][i][..., None], g, window)
        for i, g in zip(arrays["frame_index"], arrays["gaze"], strict=True)
    ]
    frames = np.clip(np.asarray(cut, np.float32) * 255 + 127, 0, 255)
    same = {name: arrays[name] for name in ("gaze", "spikes", "valid", "trial", "tier")}
    cropped = data.build(section([make_session("beta", frames=frames, **same)], batch_size=4))
    for one, other in zip(batches(built, range(3)), batches(cropped, range(3)), strict=True):
        for values, copies in zip(one, other, strict=True):
            np.testing.assert_allclose(values, copies, atol=1e-5)


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_one_bright_frame_is_found_at_the_last_place_of_the_window_that_ends_there(
    make_session, section, storage
):
    frames = np.full((180, 9, 7), 127, np.uint8)
    frames[100] = 255
    valid = np.zeros((180, 1), bool)
    valid[100] = True
    spikes = np.ones((180, 3), np.uint8)
    built = data.build(
        section(
            [make_session(frames=frames, valid=valid, spikes=spikes)],
            burn_in=9,
            predicted=1,
            batch_size=4,
            storage=storage,
        )
    )
    batch = batches(built, [0])[0]
    bright = batch.stimulus[..., 0].mean(axis=(2, 3)) > 0.4
    assert bright.tolist() == [[False] * 9 + [True]] * 4
    built.close()


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_a_segment_longer_than_its_trial_sees_nothing_of_the_next(make_session, section, storage):
    frames = np.repeat(np.arange(6, dtype=np.uint8) * 10, 30)[:, None, None] * np.ones((1, 9, 7), np.uint8)
    trial = np.where(np.arange(180) < 150, 0, np.arange(180) // 10).astype(np.int32)
    tier = np.where(np.arange(180) < 150, 0, 2).astype(np.uint8)
    frames[150:] = (trial[150:] * 10)[:, None, None]
    built = data.build(
        section([make_session(frames=frames, trial=trial, tier=tier)], predicted=20, storage=storage)
    )
    (batch,) = batches(built, [], tier=2, batch_size=4)
    luminance = np.sort(np.round(batch.stimulus[:3, :, 0, 0, 0] * 255 + 127), axis=0)
    np.testing.assert_array_equal(luminance, np.array([[150.0], [160.0], [170.0]]) * np.ones((1, 26)))
    assert batch.valid[:3, 4:].sum() == 0
    built.close()


def test_units_without_spikes_are_dropped_on_request_but_keep_their_column(make_session, section):
    spikes = session_arrays()["spikes"]
    spikes[:, 1] = 0
    folder = make_session(spikes=spikes)
    for storage in ("resident", "streamed"):
        built = data.build(section([folder], drop_silent=True, storage=storage))
        batch = batches(built, [0])[0]
        assert batch.valid[..., 1].sum() == 0 and batch.valid[..., [0, 2]].sum() > 0
        assert built.info.sessions[0].unit_ids == ("alpha-0", "alpha-1", "alpha-2")
        built.close()


def test_a_process_reads_only_its_rows_of_the_global_batch(mixed, section, monkeypatch):
    whole = data.build(section(mixed, batch_size=12, storage="streamed")).train(3)
    parts = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_count", lambda: 4)
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        built = data.build(section(mixed, batch_size=12, storage="streamed"))
        parts.append(built.train(3))
        built.close()
        alone = data.build(section(mixed, batch_size=12, storage="streamed"), whole=True)
        request = next(alone.evaluation(2, 3))  # whose rows the processes could not share
        assert {len(values) for values in request.values()} == {3}
        alone.close()
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_session_that_vanishes_while_it_is_read_is_named(mixed, section, monkeypatch):
    def fail(*_):
        raise OSError("stale file handle")

    built = data.build(section(mixed, batch_size=6, storage="streamed"))
    monkeypatch.setattr(streamed, "read_segment", fail)
    with pytest.raises(DataError, match="session alpha cannot be read any more, .*: stale file handle"):
        built.train(0)
    built.close()


def test_batches_are_the_same_on_four_devices_as_on_one(mixed, section):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for storage in ("resident", "streamed"):
        built = data.build(section(mixed, batch_size=12, storage=storage))
        request = jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(split, rows, (12, *rows.shape[1:])),
            built.train(2),
        )
        shared = jax.jit(built.fetch, out_shardings=split)(
            jax.device_put(built.resident, everywhere), request
        )
        for values, alone in zip(shared, batches(built, [2])[0], strict=True):
            assert values.sharding.is_equivalent_to(split, values.ndim)
            np.testing.assert_allclose(values, alone, atol=1e-6)
        built.close()
