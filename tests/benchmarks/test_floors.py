"""Operations and bytes of a train step against counts by hand, and the peaks of the machine."""

import dataclasses

import pytest

from benchmarks import cases, floors

# 51 x 51, 26 x 26, 13 x 13 and 7 x 7 pixels
PIXELS = 2601 + 676 + 169 + 49
MAPS = PIXELS * 64


def work_of(name, **changes):
    case = dataclasses.replace(cases.CASES[name], **changes)
    sizes = {"batch": case.batch, "frames": case.frames, "predicted": case.predicted}
    return floors.count_work(cases.make_model(case), n_parameters=1000, **sizes)


def test_dense_segments_have_the_operations_that_a_hand_counts():
    forward_filters = 2 * 15**2 * 2 * 64 * PIXELS  # a frame: 0.20 GFLOP
    assert forward_filters == pytest.approx(0.2013e9, rel=1e-3)
    # amplitude, relaxation 11; pose, rotation, correction 15; normalised at 98 of 120 frames; energy, even, odd 17
    by_frame = 11 * 120 + 15 * 120 + 7 * 98 + 17 * 96
    # the pooled amplitude of 120 frames, three maps more of 96; forward and two gradients
    pooling = 3 * 2 * 100 * MAPS * (120 + 3 * 96)
    mixing = 3 * 2 * 100 * 4 * 7 * 64 * 96
    expected = 2 * forward_filters * 120 + 3 * by_frame * MAPS + pooling + mixing
    assert work_of("segments_dense", batch=1).flops == pytest.approx(expected, rel=1e-9)


def test_the_smallest_model_has_the_operations_and_bytes_that_a_hand_counts():
    filters = 2 * 2 * 15**2 * 2 * PIXELS * 25 + 3 * 4 * MAPS * 25
    # amplitude of all frames, pose of two, energy of one; two averages of maps, four summaries and the energy pooled
    maps = 3 * (5 * 25 + 3 * 2 + 15) * MAPS + 3 * 4 * 25 * MAPS + 3 * 2 * 100 * 5 * MAPS
    mixing = 3 * 2 * 100 * 4 * 5 * 64
    work = work_of("minimal", batch=1)
    assert work.flops == pytest.approx(filters + maps + mixing, rel=1e-9)
    assert work.bytes == 4 * (2 * 25 * (51 * 51 + 2) + 2 * 100 + 7 * 1000)


def test_operations_grow_with_the_batch_and_memory_costs_bytes():
    one, two = (work_of("default", batch=batch) for batch in (1, 2))
    assert two.flops == 2 * one.flops
    assert one.bytes - work_of("relaxed", batch=1).bytes == 4 * 2 * 3 * MAPS * 25


def test_the_floor_is_what_takes_longer():
    peaks = floors.Peaks(flops=100.0, bytes=10.0)
    assert floors.floor_seconds(floors.Work(1000.0, 10.0), peaks) == 10.0
    assert floors.floor_seconds(floors.Work(1000.0, 200.0), peaks) == 20.0


def test_the_machine_has_peaks():
    peaks = floors.measure_peaks(product_size=64, copy_bytes=2**16)
    assert peaks.flops > 0 and peaks.bytes > 0
