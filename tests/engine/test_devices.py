"""What a run becomes must not depend on the devices that compute it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polarjax.engine import interruption, sharding
from polarjax.engine.optim import OptimConfig, make_optimizer
from polarjax.engine.state import flatten, to_host
from polarjax.engine.step import make_eval_step, make_initialize, make_train_step
from tests.engine import tiny_polar, toy
from tests.engine.runs import assert_same_bits, lines_of, mesh_of, run, without_times

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
AS_IN_A_RUN = {"xla_backend_optimization_level": 3}


def collectives(compiled):
    text = compiled.as_text()
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: count for name, count in counts.items() if count}


def prepare(config, system, data, mesh, micro_batches=4):
    """Returns the jitted step and evaluation, their first state, and step -> request."""
    resident = sharding.put_replicated(data.resident, mesh)

    def put(step):
        return sharding.put_request(data.train(step), mesh, batch_size=8, micro_batches=micro_batches)

    def init(resident, rows):
        return system.init(jax.random.key(0), data.fetch(resident, rows))["params"]

    here = (sharding.on_one_device(resident), sharding.first_rows(put(0), mesh, 8))
    optim = OptimConfig.read(config.optim, config.train.num_steps)
    params = jax.eval_shape(init, *here)
    optimizer = make_optimizer(optim, system.param_group, params, config.train.num_steps)
    first = make_initialize(system, optimizer, data.fetch, 0).lower(*here).compile()(*here)
    state = sharding.put_replicated(to_host(first), mesh)
    step = make_train_step(system, optimizer, data.fetch, mesh, deterministic=optim.deterministic)
    evaluate = make_eval_step(system, data.fetch, mesh, deterministic=optim.deterministic)
    return step, evaluate, state, resident, put


def end_of_polar(dtype, count, weights):
    """Runs three steps and one evaluation of Polar-V1; returns the state, both numbers and the collectives."""
    config = tiny_polar.make_config(dtype)
    config = tiny_polar.add_objective(config, weights) if weights else config
    system, mesh = tiny_polar.make_system(config), mesh_of(count)
    step, evaluate, state, resident, put = prepare(config, system, tiny_polar.make_data(), mesh)
    compiled = step.lower(state, resident, put(0)).compile(AS_IN_A_RUN)
    for number in range(3):
        state, scalars = compiled(state, resident, put(number))
    sums = evaluate.lower(state, resident, put(3)).compile(AS_IN_A_RUN)(state, resident, put(3))
    return (state, scalars, sums), collectives(compiled)


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [("bfloat16", {}), ("float32", {"poisson": 1.0, "jepa": 0.5, "coding_rate": 0.1})],
    ids=["bfloat16", "float32 and self-supervised"],
)
def test_polar_v1_ends_with_the_same_bits_on_one_and_on_four_devices(dtype, weights):
    """With the options that a run has: XLA fuses otherwise beside other devices, and other options round otherwise."""
    (one, _), (four, found) = (end_of_polar(dtype, count, weights) for count in (1, 4))
    assert_same_bits(four, one)
    assert float(one[1]["train/grad_norm"]) > 0
    assert found == {"all-reduce": 2 if "coding_rate" in weights else 1}


def test_penalties_are_those_of_all_rows_however_many_micro_batches_and_devices_share_them():
    """Nothing else is in the loss, whose gradient is then that of one micro-batch with all rows.

    The second draws what all micro-batches must have alike; the third has moments, as the first.
    """
    names, ends = ("coding_rate", "sliced_gaussian"), []
    for micro_batches, devices in ((1, 1), (4, 4)):
        config = tiny_polar.make_config(**{"optim.micro_batches": micro_batches, "optim.clip_norm": 1e6})
        config = tiny_polar.add_objective(config, {"jepa": 1e-30} | dict.fromkeys(names, 1.0))
        system, mesh = tiny_polar.make_system(config), mesh_of(devices)
        step, _, state, resident, put = prepare(config, system, tiny_polar.make_data(), mesh, micro_batches)
        ends.append(step.lower(state, resident, put(0)).compile()(state, resident, put(0))[1])
    for scalar in (*(f"train/loss_{name}" for name in names), "train/grad_norm"):
        np.testing.assert_allclose(ends[1][scalar], ends[0][scalar], rtol=2e-4)
    assert float(ends[0]["train/grad_norm"]) > 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_ends_with_the_same_bits_and_numbers_on_any_devices(whole, tmp_path, use_devices, count):
    use_devices(count)
    state = run(tmp_path)
    assert len(state.step.sharding.device_set) == count
    assert len(whole[1].step.sharding.device_set) == 4
    assert_same_bits(state, whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


def test_a_run_continues_on_other_devices_to_the_same_bits(whole, tmp_path, use_devices):
    for count, last in ((1, 3), (4, 6), (2, 99)):
        use_devices(count)
        try:
            state = run(tmp_path, stop=lambda step, last=last: step == last)
        except interruption.Interrupted:
            continue
    assert_same_bits(state, whole[1])
    assert without_times(lines_of(tmp_path)) == without_times(lines_of(whole[0]))


@pytest.mark.parametrize(("micro_batches", "used"), [(3, 3), (2, 2)])
def test_devices_that_cannot_share_the_micro_batches_stay_idle_and_the_bits_are_those_of_one(
    tmp_path, use_devices, capsys, micro_batches, used
):
    options = {"optim.micro_batches": micro_batches, "data.batch_size": 6, "train.num_steps": 4}
    some = run(tmp_path / "some", **options)
    assert f"\n{used} of 4 devices are used: config.optim.micro_batches is {micro_batches}\n" in (
        "\n" + capsys.readouterr().out
    )
    assert some.step.sharding.num_devices == used
    use_devices(1)
    assert_same_bits(run(tmp_path / "one", **options), some)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_step_and_an_evaluation_make_one_all_reduce_each(deterministic):
    config = toy.make_config(**{"optim.deterministic": deterministic})
    parts = prepare(config, toy.make_system(), toy.make_data(), mesh_of(4))
    step, evaluate, state, resident, put = parts
    for function in (step, evaluate):
        assert collectives(function.lower(state, resident, put(0)).compile()) == {"all-reduce": 1}


def test_without_determinism_devices_differ_by_rounding_alone(whole, tmp_path, use_devices):
    use_devices(2)
    state = run(tmp_path, **{"optim.deterministic": False})
    for path, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, flatten(whole[1].params)[path], rtol=1e-6, atol=1e-6)


def test_micro_batches_give_the_step_of_the_whole_batch_where_all_weigh_alike(tmp_path):
    quiet = toy.make_system(noise=0.0)
    states = [
        run(tmp_path / str(k), system=quiet, **{"optim.micro_batches": k, "train.num_steps": 6})
        for k in (4, 8)
    ]
    for path, leaf in flatten(states[0].params).items():
        np.testing.assert_allclose(leaf, flatten(states[1].params)[path], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_sums_are_added_in_one_order_and_keep_integers_and_the_sign_of_zero(count):
    values = np.float32([1e8, 1.0, -1e8, 1.0, -0.0, 0.0, 3e-8, 1e-8]).reshape(8, 1)

    def total(request):
        def part(rows, index, micro_batches):
            return {
                "value": rows[0],
                "zero": -0.0 * jnp.abs(rows[0]),
                "number": index,
                "one": micro_batches // 8,
            }

        return sharding.sum_micro_batches(part, request, deterministic=True)[0]

    placed = sharding.put_request(values, mesh_of(count), batch_size=8, micro_batches=8)
    sums = jax.jit(sharding.on_every_device(total, mesh_of(count), split=0))(placed)
    expected = ((values[0] + values[1]) + (values[2] + values[3])) + (
        (values[4] + values[5]) + (values[6] + values[7])
    )
    assert np.asarray(sums["value"]).tobytes() == expected.tobytes()
    assert not np.signbit(sums["zero"])
    assert (int(sums["number"]), int(sums["one"])) == (28, 8)
    assert sums["number"].dtype == np.int32


@pytest.mark.parametrize(("limit", "number"), [(1, 2), (10, 10), (11, 10), (99, 16)])
def test_the_first_rows_come_in_whole_micro_batches(limit, number):
    values, mesh = np.arange(16, dtype=np.uint8), mesh_of(4)
    placed = sharding.put_request(values, mesh, batch_size=16, micro_batches=8)
    rows = sharding.first_rows(placed, mesh, limit)
    np.testing.assert_array_equal(rows, values[:number])
    assert len(rows.sharding.device_set) == 1
