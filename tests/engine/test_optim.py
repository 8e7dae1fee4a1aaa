import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polarjax.core import ConfigError
from polarjax.engine.optim import OptimConfig, describe_groups, learning_rate, make_optimizer
from tests.engine import toy


def read(num_steps=100, **overrides):
    return OptimConfig.read(
        toy.make_config(**{f"optim.{k}": v for k, v in overrides.items()}).optim, num_steps
    )


PARAMS = {"core": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "readout": {"kernel": jnp.ones((3, 2))}}


def by_first_name(path):
    return path[0]


def test_what_is_frozen_keeps_its_bits_those_of_minus_zero_too():
    params = {**PARAMS, "core": {"kernel": jnp.ones((2, 3)), "bias": jnp.array([-0.0, 0.0, -1.5])}}
    optimizer = make_optimizer(read(**{"groups.core": None}), by_first_name, params, 100)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, 3)
    after = optax.apply_updates(params, updates)
    assert np.asarray(after["core"]["bias"]).tobytes() == np.asarray(params["core"]["bias"]).tobytes()
    assert np.all(np.asarray(after["readout"]["kernel"]) != 1)


@pytest.mark.parametrize(("suffix", "tolerance"), [("", 2e-6), (".f64", 1e-9)])
def test_three_adamw_steps_with_clipping_equal_the_reference(golden, suffix, tolerance):
    numbers = golden("polar/adamw_clip")
    with jax.enable_x64(bool(suffix)):
        params = {
            "a": {"kernel": jnp.asarray(numbers["p1.0" + suffix])},
            "b": {"kernel": jnp.asarray(numbers["p2.0" + suffix])},
        }
        groups = {
            "a": {"learning_rate": 1.5e-3, "weight_decay": 5e-5},
            "b": {"learning_rate": 1e-3, "weight_decay": 0.0},
        }
        config = read(groups=groups, warmup_steps=0, schedule="constant", clip_norm=5.0)
        optimizer = make_optimizer(config, by_first_name, params, 100)
        state = optimizer.init(params)
        for step in range(3):
            gradients = {
                k: {"kernel": jnp.asarray(numbers[f"g{i}.{step}{suffix}"])} for i, k in ((1, "a"), (2, "b"))
            }
            norm = optax.tree.norm(gradients)
            np.testing.assert_allclose(norm, numbers[f"norm.{step}{suffix}"], rtol=1e-6)
            updates, state = optimizer.update(gradients, state, params, step)
            params = optax.apply_updates(params, updates)
            for i, k in ((1, "a"), (2, "b")):
                want = numbers[f"p{i}.{step + 1}{suffix}"]
                assert params[k]["kernel"].dtype == want.dtype
                np.testing.assert_allclose(params[k]["kernel"], want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("warmup", "steps"), [(5, 100), (10, 100), (15, 100), (5, 30)])
def test_the_schedule_per_step_equals_the_schedule_of_the_reference_per_epoch(golden, warmup, steps):
    want = golden("polar/lr_schedules")[f"cosine.W{warmup}.E{steps}"]
    got = [
        [
            learning_rate(e, peak, warmup_steps=warmup, num_steps=steps, schedule="cosine")
            for peak in (1e-3, 1.5e-3)
        ]
        for e in range(steps)
    ]
    np.testing.assert_allclose(np.asarray(got), want, rtol=2e-5, atol=1e-9)


def test_a_constant_schedule_stays_at_its_peak_after_the_warm_up():
    rates = [learning_rate(s, 2.0, warmup_steps=4, num_steps=10, schedule="constant") for s in range(10)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1.5, 2, 2, 2, 2, 2, 2])


def test_weights_decay_and_biases_do_not():
    optimizer = make_optimizer(read(schedule="constant", warmup_steps=0), by_first_name, PARAMS, 100)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS, 5)
    np.testing.assert_allclose(updates["core"]["kernel"], -0.05 * 1e-3 * np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(updates["core"]["bias"], np.zeros(3))


def test_a_frozen_group_has_no_update_no_moments_and_no_part_in_the_norm():
    groups = {"core": None, "readout": {"learning_rate": 0.1, "weight_decay": 0.0}}
    optimizer = make_optimizer(read(groups=groups, warmup_steps=0), by_first_name, PARAMS, 100)
    state = optimizer.init(PARAMS)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * 6 + 1
    gradients = jax.grad(lambda p: 1e6 * optax.tree.sum(jax.tree.map(jnp.square, optimizer.hold(p))) / 2)(
        PARAMS
    )
    np.testing.assert_allclose(optax.tree.norm(gradients), 1e6 * np.sqrt(6), rtol=1e-6)
    updates, _ = optimizer.update(gradients, state, PARAMS, 1)
    assert not np.any(updates["core"]["kernel"]) and not np.any(updates["core"]["bias"])
    assert np.all(updates["readout"]["kernel"] != 0)
    assert set(optimizer.learning_rates(1)) == {"readout"}


def test_groups_must_be_exactly_those_of_the_model():
    config = read(groups={"core": None, "readuot": {"learning_rate": 0.1, "weight_decay": 0.0}})
    message = (
        r"^config\.optim\.groups must name exactly the parameter groups of the model\. "
        r"Without an optimizer: \['readout'\]; without a parameter: \['readuot'\] "
        r"\(set to None what the model does not have\)\.$"
    )
    with pytest.raises(ConfigError, match=message):
        make_optimizer(config, by_first_name, PARAMS, 100)


def test_a_group_that_is_not_trained_may_have_no_parameters():
    trained = {"learning_rate": 0.1, "weight_decay": 0.0}
    config = read(groups={"core": trained, "readout": trained, "lambda_fix": None})
    make_optimizer(config, by_first_name, PARAMS, 100)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"b1": 1.0}, r"config\.optim\.b1 must be a finite number in \[0, 1\), got 1\.0"),
        ({"b2": float("nan")}, r"config\.optim\.b2 must be a finite number in \[0, 1\), got nan"),
        ({"clip_norm": 0.0}, r"config\.optim\.clip_norm .*\(0, 1e\+06\], got 0\.0"),
        ({"clip_norm": None}, r"config\.optim\.clip_norm .* got None"),
        (
            {"micro_batches": 1.5},
            r"config\.optim\.micro_batches must be a whole number in \[1, inf\), got 1\.5",
        ),
        ({"warmup_steps": 101}, r"warmup_steps is 101, longer than config\.train\.num_steps, 100"),
        ({"schedule": "cosin"}, r"config\.optim\.schedule is 'cosin'; did you mean 'cosine'\?"),
        ({"betas": 1}, r"config\.optim\.betas is not an option"),
        ({"groups": 5}, r"config\.optim\.groups must be a section of options, got 5"),
        ({"groups.core.learning_rate": -1e-3}, r"groups\.core\.learning_rate .*\[0, 1\], got -0\.001"),
        ({"groups.core.learning_rate": "1e-3"}, r"groups\.core\.learning_rate .* got '1e-3'"),
        ({"groups.core.learning_rat": 1.0}, r"learning_rat is not an option; did you mean 'learning_rate'\?"),
        ({"groups.core": {"learning_rate": 0.1}}, r"config\.optim\.groups\.core\.weight_decay is missing"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_its_range(overrides, message):
    with pytest.raises(ConfigError, match=message):
        read(**overrides)


def test_a_truth_value_is_no_number():
    section = toy.make_config().optim.to_dict()
    with pytest.raises(ConfigError, match=r"config\.optim\.micro_batches must be a whole number .* got True"):
        OptimConfig.read({**section, "micro_batches": True}, 100)


def test_the_table_of_groups_counts_every_parameter_once():
    config = read(groups={"core": None, "readout": {"learning_rate": 0.1, "weight_decay": 0.0}})
    lines = describe_groups(config, by_first_name, PARAMS).splitlines()
    assert lines[1].split() == ["core", "9", "frozen"]
    assert lines[2].split() == ["readout", "6", "0.1", "0"]
