"""A run that starts from another: what is refused and what is warned of."""

import dataclasses
import shutil

import jax.numpy as jnp
import pytest

from polarjax.core import CheckpointError, ConfigError, LossOutput
from polarjax.engine import archive, checkpoints, interruption, loop
from polarjax.engine import workdir as folders
from tests.engine import toy
from tests.engine.runs import assert_same_bits, flip_a_bit, run
from tests.engine.toy_sessions import make_data, make_system, train

THERE, HERE = {"a": 3, "b": 2}, {"b": 2, "c": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of the sessions a and b, with checkpoints of steps 8 and 12."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, THERE)
    return folder


def test_a_core_of_another_shape_names_every_parameter_and_the_value_that_differs(source, tmp_path):
    message = (
        r"config.init_from .*step 12 does not fit this model: "
        r"core/bias is float32\[4\] there and float32\[5\] here; "
        r"core/kernel is float32\[6, 4\] there and float32\[6, 5\] here\. "
        r"config.model.kwargs.noise is 0.01 there and 0.5 here\. Set these values to those of the run"
    )
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, HERE, width=5, init_from=str(source), **{"model.kwargs.noise": 0.5})
    assert checkpoints.list_steps(tmp_path) == []


def test_a_run_without_a_core_in_common_is_refused(source, tmp_path):
    data = make_data(**HERE)
    system = make_system(data.info)

    def init(rng, batch):
        variables = system.init(rng, batch)
        params = {"readout": variables["params"]["readout"], "trunk": variables["params"]["core"]}
        return variables | {"params": params}

    config = toy.make_config(init_from=str(source))
    with pytest.raises(ConfigError, match="it shares no parameter with this model outside the readouts"):
        loop.train(config, system._replace(init=init), data, tmp_path / "run")


def test_a_model_of_readouts_alone_starts_from_sessions_it_shares_or_is_refused(tmp_path):
    def trained(folder, sessions, **options):
        data = make_data(**sessions)
        system = make_system(data.info)._replace(param_group=lambda path: "readout")
        params = {"params": {"readout": jnp.zeros((len(sessions), data.info.max_units, 4))}}
        zeros = jnp.zeros((8, 1, data.info.max_units))

        def loss(params, state, batch, rng):
            value = jnp.mean((params["readout"] - 1) ** 2)
            return LossOutput(value, {"loss_poisson": value}, {})

        system = system._replace(
            init=lambda rng, batch: params, loss=loss, measure=lambda given, batch: given
        )
        system = system._replace(constants=lambda params: {}, eval_sums=lambda state, batch: zeros.sum())
        groups = {"readout": toy.make_config().optim.groups.readout}
        return run(folder, data=data, system=system, **{"optim.groups": groups}, **options)

    trained(tmp_path / "there", THERE)
    source = str(tmp_path / "there")
    trained(tmp_path / "here", HERE, init_from=source)
    assert checkpoints.restore(tmp_path / "here")[1]["init_from"]["readouts"] == ["params/readout"]
    with pytest.raises(
        ConfigError, match="has nothing for this run, whose model is all readout: no session has"
    ):
        trained(tmp_path / "other", {"c": 2}, init_from=source)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_source_that_is_no_run_is_refused(tmp_path, folder):
    with pytest.raises(
        ConfigError, match=r"config.init_from is '.*', which holds no checkpoint; expected .*or '' to start"
    ):
        train(tmp_path / "run", HERE, init_from=str(tmp_path / folder))


def test_a_damaged_source_is_named_and_never_replaced_by_another_checkpoint_of_it(source, tmp_path):
    for number, part in enumerate(("arrays", "meta")):
        there = shutil.copytree(source, tmp_path / part)
        if part == "arrays":
            flip_a_bit(there / "checkpoints" / "12")
        else:
            (there / "checkpoints" / "8" / "meta" / "metadata").write_text("{")
        with pytest.raises(
            CheckpointError, match=r"config.init_from is .*: .* is damaged, .*bring the folder back"
        ) as error:
            train(tmp_path / str(number), HERE, init_from=str(there))
        assert error.value.exit_code == 4
        assert sorted(archive.list_steps(there)) == [8, 12]


def test_frames_of_another_rate_and_other_values_of_the_model_are_told(source, tmp_path, capsys):
    data = make_data(**HERE)
    data = data._replace(info=dataclasses.replace(data.info, rate_hz=120.0))
    config = toy.make_config(init_from=str(source), **{"model.kwargs.noise": 0.5, "train.num_steps": 2})
    loop.train(config, make_system(data.info), data, tmp_path)
    printed = capsys.readouterr().out
    assert f"warning: {source}, step 12 saw 240 frames/s and this run sees 120: what its core" in printed
    assert "config.model.kwargs.noise is 0.01 there and 0.5 here\n" in printed


def test_a_run_of_before_there_was_a_source_goes_on(tmp_path, monkeypatch):
    describe = folders.describe_run

    def of_before(config, info):
        run = describe(config, info)
        run["config"].pop("init_from")
        return run

    whole = train(tmp_path / "whole", HERE)
    with monkeypatch.context() as patch, pytest.raises(interruption.Interrupted):
        patch.setattr(folders, "describe_run", of_before)
        patch.setattr("polarjax.engine.warm_start.read_start", lambda *given: ({}, None, []))
        train(tmp_path / "run", HERE, stop=lambda step: step == 5)
    assert_same_bits(train(tmp_path / "run", HERE), whole)
    with pytest.raises(ConfigError, match="config.init_from is '' there and 'elsewhere' here"):
        train(tmp_path / "run", HERE, init_from="elsewhere")
