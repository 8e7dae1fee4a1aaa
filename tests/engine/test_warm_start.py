"""A run that starts from another: what is copied, and what starts afresh."""

import re
import shutil

import numpy as np
import pytest

from polarjax import inspect
from polarjax.engine import archive, checkpoints, interruption
from tests.engine.runs import assert_same_bits, lines_of, run, without_times
from tests.engine.toy_sessions import make_data, make_system, train

THERE, HERE = {"a": 3, "b": 2}, {"b": 2, "c": 2}
KEEP = {"train.keep_latest": 9}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of the sessions a and b, whose best and latest checkpoint is that of step 12."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, THERE)
    return folder


@pytest.fixture(scope="module")
def warm(source, tmp_path_factory):
    """A run of the sessions b and c that starts from it."""
    folder = tmp_path_factory.mktemp("warm") / "run"
    return folder, train(folder, HERE, init_from=str(source), **KEEP)


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """The first state of a run of b and c that starts afresh."""
    folder = tmp_path_factory.mktemp("cold") / "run"
    with pytest.raises(interruption.Interrupted):
        train(folder, HERE, stop=lambda step: True, **KEEP)
    return checkpoints.restore(folder, 0)[0]


def first_state(folder, sessions, source, **options):
    """Returns state and meta of a run before its first step."""
    with pytest.raises(interruption.Interrupted):
        train(folder, sessions, init_from=str(source), stop=lambda step: True, **KEEP, **options)
    return checkpoints.restore(folder, 0)


def hidden_mean(params, sessions):
    """Returns the mean features of the first batch."""
    data = make_data(**sessions)
    batch = data.fetch(data.resident, data.train(0))
    return (batch.stimulus[:, 0, 0, 0] @ params["core"]["kernel"] + params["core"]["bias"]).mean(0)


def test_the_core_is_copied_bit_by_bit_and_all_else_is_as_in_any_new_run(source, warm, cold):
    trained, _ = checkpoints.restore(source, "best")
    first, meta = checkpoints.restore(warm[0], 0)
    assert_same_bits(first.params["core"], trained.params["core"])
    assert np.any(first.params["core"]["kernel"] != cold.params["core"]["kernel"])
    assert_same_bits((first.step, first.opt_state, first.rng), (cold.step, cold.opt_state, cold.rng))
    assert meta["step"] == 0


def test_readouts_of_a_session_that_both_have_are_copied_by_name_and_the_others_are_drawn(source, warm, cold):
    trained, _ = checkpoints.restore(source, "best")
    first, _ = checkpoints.restore(warm[0], 0)
    for name, leaf in first.params["readout"].items():
        np.testing.assert_array_equal(leaf[0], trained.params["readout"][name][1, :2])
        np.testing.assert_array_equal(leaf[1], cold.params["readout"][name][1])
    assert_same_bits(first.model_state, trained.model_state)


def test_what_pads_a_copied_readout_is_drawn(source, tmp_path):
    first, _ = first_state(tmp_path / "wider", {"b": 2, "c": 3}, source)
    drawn, _ = first_state(tmp_path / "drawn", {"d": 2, "c": 3}, source)
    trained, _ = checkpoints.restore(source, "best")
    kernel = first.params["readout"]["kernel"]
    np.testing.assert_array_equal(kernel[0, :2], trained.params["readout"]["kernel"][1, :2])
    np.testing.assert_array_equal(kernel[0, 2], drawn.params["readout"]["kernel"][0, 2])


def test_without_a_copied_readout_features_are_measured_under_the_copied_core(source, tmp_path, cold, capsys):
    first, meta = first_state(tmp_path / "run", {"c": 2, "d": 2}, source)
    np.testing.assert_allclose(
        first.model_state["statistics"]["mean"], hidden_mean(first.params, {"c": 2, "d": 2}), atol=1e-6
    )
    assert (
        np.abs(first.model_state["statistics"]["mean"] - cold.model_state["statistics"]["mean"]).max() > 0.05
    )
    assert meta["init_from"]["sessions"] == []
    printed = capsys.readouterr().out
    assert f"core from {source}, step 12: 2 parameters; new: readout (2)\n" in printed
    assert "all readouts start afresh: no session has the name and the units of one of that run\n" in printed


@pytest.mark.parametrize(
    ("sessions", "there", "why"),
    [
        ({"a": 2, "c": 3}, {}, "no session has the name and the units of one of that run"),
        (THERE, {"optim.groups.readout": None}, "that run did not train its own"),
        (THERE, {"spiking": False}, "that run did not train its own"),
        (THERE, {"repeats": 2}, "they have other features than in that run"),
        (THERE, {"collection": "means"}, "their features are scaled otherwise than in that run"),
    ],
)
def test_a_readout_of_other_units_or_features_or_that_was_never_trained_is_not_copied(
    tmp_path, capsys, sessions, there, why
):
    train(tmp_path / "there", THERE, **there)
    first, meta = first_state(tmp_path / "here", sessions, tmp_path / "there")
    assert meta["init_from"]["sessions"] == []
    expected = hidden_mean(first.params, sessions)
    np.testing.assert_allclose(first.model_state["statistics"]["mean"], expected, atol=1e-6)
    assert f"all readouts start afresh: {why}\n" in capsys.readouterr().out


def test_readouts_that_were_copied_and_then_frozen_are_copied_again(source, tmp_path):
    train(tmp_path / "b", THERE, init_from=str(source), **{"optim.groups.readout": None})
    _, meta = first_state(tmp_path / "c", HERE, tmp_path / "b")
    assert meta["init_from"]["sessions"] == ["b"]


def test_a_frozen_core_is_the_same_bit_by_bit_after_training(source, tmp_path):
    state = train(tmp_path / "run", HERE, init_from=str(source), **{"optim.groups.core": None})
    trained, _ = checkpoints.restore(source, "best")
    assert_same_bits(state.params["core"], trained.params["core"])
    assert np.any(
        np.asarray(state.params["readout"]["kernel"])[0] != trained.params["readout"]["kernel"][1, :2]
    )


@pytest.mark.parametrize("count", [1, 4])
def test_a_resumed_run_needs_no_source_and_ends_with_the_same_bits_on_any_devices(
    source, warm, tmp_path, use_devices, count
):
    there = shutil.copytree(source, tmp_path / "there")
    with pytest.raises(interruption.Interrupted):
        train(tmp_path / "run", HERE, init_from=str(there), stop=lambda step: step == 5, **KEEP)
    shutil.rmtree(there)
    use_devices(count)
    state = train(tmp_path / "run", HERE, init_from=str(there), **KEEP)
    assert_same_bits(state, warm[1])
    assert without_times(lines_of(tmp_path / "run")) == without_times(lines_of(warm[0]))
    _, meta = checkpoints.restore(tmp_path / "run")
    assert meta["init_from"] == checkpoints.restore(warm[0])[1]["init_from"] | {"path": str(there)}


def test_every_checkpoint_says_where_its_core_is_from_and_inspect_prints_it(source, warm, capsys):
    record = checkpoints.restore(warm[0])[1]["init_from"]
    trained, meta = checkpoints.restore(source, "best")
    assert record.items() >= {"path": str(source), "step": 12, "sessions": ["b"], "left_behind": []}.items()
    copied = {f"params/core/{name}": leaf for name, leaf in trained.params["core"].items()}
    copied |= {
        f"params/readout/{name}": leaf[1, :2].ravel() for name, leaf in trained.params["readout"].items()
    }
    copied["params/readout/kernel"] = trained.params["readout"]["kernel"][1, :2].ravel()
    assert record["digest"] == archive.digest_of_json({name: archive.digest(x) for name, x in copied.items()})
    assert record["constants"] == {
        "temporal/tau_fix_ms": pytest.approx(1e3 * np.exp(trained.params["core"]["bias"][0]))
    }
    assert [checkpoints.restore(warm[0], step)[1]["init_from"] for step in (0, 4, 8)] == [record] * 3
    assert inspect.main([str(warm[0])]) == 0
    where = re.escape(f"  started from {source}, step 12: 4 parameters")
    line = rf"{where}, digest {record['digest'][:12]}, readouts of b$"
    assert re.search(line, capsys.readouterr().out, re.MULTILINE)
    assert meta["init_from"] is None
    assert inspect.main([str(source)]) == 0
    assert "started from" not in capsys.readouterr().out


def test_heads_that_one_of_both_lacks_are_left_behind_or_drawn_and_told(tmp_path, capsys):
    train(tmp_path / "there", THERE, heads=("jepa", "both"))
    first, meta = first_state(tmp_path / "here", HERE, tmp_path / "there", heads=("both", "probe"))
    trained, _ = checkpoints.restore(tmp_path / "there")
    assert set(first.params) == {"core", "readout", "both", "probe"}
    assert_same_bits(first.params["both"], trained.params["both"])
    assert meta["init_from"]["left_behind"] == ["params/jepa/kernel"]
    line = "3 parameters; readouts of b: 2 parameters; new: probe (1), readouts of c; left behind: jepa (1)\n"
    assert f"core from {tmp_path / 'there'}, step 12: {line}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metrics", "chosen"), [((1.0, 9.0, 2.0), 8), ((np.nan, np.nan, np.nan), 12), ((np.nan, 3.0, np.nan), 8)]
)
def test_the_best_checkpoint_is_taken_or_the_latest_where_no_metric_is_finite(tmp_path, metrics, chosen):
    train(tmp_path / "there", THERE, metrics=metrics, **KEEP)
    first, meta = first_state(tmp_path / "here", HERE, tmp_path / "there")
    assert meta["init_from"]["step"] == chosen
    there, _ = checkpoints.restore(tmp_path / "there", chosen)
    assert_same_bits(first.params["core"], there.params["core"])


def test_nothing_is_traced_anew_for_a_run_that_starts_afresh(tmp_path):
    data = make_data(**HERE)
    calls = []
    system = make_system(data.info)

    def measure(variables, batch):
        calls.append(variables)
        return system.measure(variables, batch)

    run(tmp_path, data=data, system=system._replace(measure=measure), **{"train.num_steps": 2})
    assert calls == []
