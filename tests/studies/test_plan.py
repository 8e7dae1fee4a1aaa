"""What a study file may say, and how a wrong one is answered."""

import pytest

from polarjax.core import ConfigError
from polarjax.studies import plan, study_file

from .conftest import ROOT

GOOD = {
    "QUESTION": "Which?",
    "SEEDS": (0, 1),
    "REFERENCE": "a",
    "RUNS": [
        ("a", "configs/polar.py", {}),
        (
            "b",
            "configs/polar.py:quick",
            {"optim.clip_norm": 1.0, "data.sessions": "x", "optim.groups.core": None},
        ),
        ("c", "configs/polar.py:quick", {}, {"as_long_as": "a"}),
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(**values):
        path = tmp_path / "toys.py"
        fields = {name: value for name, value in {**GOOD, **values}.items() if value != "absent"}
        path.write_text("\n".join(f"{name} = {value!r}" for name, value in fields.items()))
        return path

    return write


def test_a_study_file_is_read_with_its_values_as_text(write):
    study = study_file.read_study(write())
    assert (study.name, study.reference, study.seeds) == ("toys", "a", (0, 1))
    assert study.entries[1].overrides == {
        "optim.clip_norm": "1.0",
        "data.sessions": "x",
        "optim.groups.core": "None",
    }
    assert [entry.as_long_as for entry in study.entries] == [None, None, "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"QUESTION": "absent"}, r"toys.py: QUESTION is missing; a study has QUESTION, SEEDS, REFERENCE, RUNS"),
        ({"SEEDS": ()}, r"SEEDS must be different whole numbers >= 0, got \(\)"),
        ({"SEEDS": (1, 1)}, r"SEEDS must be different"),
        ({"REFERENCE": "aa"}, r"REFERENCE is 'aa', no entry of RUNS; did you mean 'a'"),
        ({"RUNS": [("a", "x", {}), ("a", "y", {})]}, r"RUNS has two entries 'a'"),
        ({"RUNS": [("a/b", "x", {})]}, r"the name of an entry is a folder, .*got 'a/b'"),
        ({"RUNS": [("..", "x", {})]}, r"the name of an entry is a folder, .*got '\.\.'"),
        ({"RUNS": [("a", "x")]}, r"an entry of RUNS is \(name, config, overrides\)"),
        ({"RUNS": [("a", "x", {"seed": 1})]}, r"entry 'a' sets 'seed', which the study sets"),
        ({"RUNS": [("a", "x", {}, {"as_long": "b"})]}, r"unknown option 'as_long'; did you mean 'as_long_as'"),
        ({"RUNS": [("a", "x", {}), ("b", "x", {}, {"as_long_as": "b"})]}, r"'b', no entry of RUNS with a number"),
        ({"RUNS": [("a", "x", {}), ("b", "x", {}, {"init_from": "aa"})]}, r"'b' starts from 'aa', no entry.*mean 'a'"),
        ({"RUNS": [("a", "x", {}, {"init_from": "a"})]}, r"wait for each other.*Waiting are 'a' for a"),
        (
            {"RUNS": [("a", "x", {}, {"init_from": "b"}), ("b", "x", {}, {"init_from": "a"}), ("c", "x", {})]},
            r"Waiting are 'a' for b; 'b' for a",
        ),
        (
            {"RUNS": [("a", "x", {}, {"init_from": "b"}), ("b", "x", {}, {"as_long_as": "a"})]},
            r"after the one that it starts from or lasts as long as. Waiting are 'a' for b; 'b' for a",
        ),
        (
            {"RUNS": [("a", "x", {}), ("b", "x", {"init_from": "runs/a"}, {"init_from": "a"})]},
            r"entry 'b' has init_from twice, as a value, .* and as an option",
        ),
        ({"REFERENCES": {"c": "bb"}}, r"REFERENCES has 'bb', no entry of RUNS"),
        ({"REFERENCES": {"cc": "b"}}, r"REFERENCES has 'cc', no entry of RUNS"),
        ({"REFERENCES": {"c": "c"}}, r"REFERENCES compares 'c' with 'c'; leave it out"),
        ({"REFERENCES": {"a": "b"}}, r"REFERENCES compares 'a' .*REFERENCE is compared with none"),
        ({"REFERENCES": ("c", "b")}, r"REFERENCES is \{entry: .*got \('c', 'b'\)"),
        ({"TRUTH": {"tau_fix": 1.0}, "CONSTANTS": ("tau_fix_ms",)}, r"'tau_fix', .*did you mean 'tau_fix_ms'"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_answered_in_one_line(write, values, message):
    with pytest.raises(ConfigError, match=message) as wrong:
        study_file.read_study(write(**values))
    assert "\n" not in str(wrong.value)


def test_entries_are_trained_after_those_that_they_need_and_else_in_their_order(write):
    lines = [("timed", "x", {}, {"as_long_as": "a"}), ("fine", "x", {}, {"init_from": "pre"})]
    lines += [("a", "x", {}, {"init_from": "fine"}), ("pre", "x", {}), ("b", "x", {})]
    entries = study_file.read_study(write(RUNS=lines)).entries
    assert [entry.name for entry in plan.in_order(entries)] == ["pre", "fine", "a", "b", "timed"]
    assert [entry.name for entry in plan.in_order(entries[1:3])] == ["fine", "a"]


def test_a_source_is_not_set_for_every_entry_where_the_study_sets_it(write):
    lines = [("a", "x", {}), ("b", "x", {}, {"init_from": "a"})]
    with pytest.raises(ConfigError, match=r"--config.init_from is set by the study for b"):
        plan.with_overrides(study_file.read_study(write(RUNS=lines)), {"init_from": "runs/x"})
    given = plan.with_overrides(study_file.read_study(write(RUNS=lines[:1])), {"init_from": "runs/x"})
    assert given.entries[0].overrides == {"init_from": "runs/x"}


def test_a_study_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"v1_model.py: no such study file in .*studies; did you mean 'v1_models'"
    ):
        study_file.read_study(ROOT / "studies/v1_model.py")
    with pytest.raises(ConfigError, match=r"no such study file in .*; name the path of one"):
        study_file.read_study(tmp_path / "nothing.py")
    (tmp_path / "broken.py").write_text("RUNS = [}")
    with pytest.raises(ConfigError, match=r"broken.py: SyntaxError"):
        study_file.read_study(tmp_path / "broken.py")


@pytest.mark.parametrize("name", ["v1_models", "v1_models.py", "studies/v1_models", "studies/v1_models.py"])
def test_a_study_in_its_folder_is_found_by_its_name(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    assert study_file.read_study(name).name == "v1_models"


def test_a_name_that_no_study_has_is_answered_with_those_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        ConfigError, match=r"no such study file in studies; allowed are jepa_choices, .*v1_models$"
    ):
        study_file.read_study("compare")


def test_an_entry_may_have_a_reference_of_its_own(write):
    assert study_file.read_study(write()).references == {}
    assert study_file.read_study(write(REFERENCES={"c": "b"})).references == {"c": "b"}


def test_seeds_and_entries_are_chosen_on_the_command_line(write):
    study, chosen = plan.select(study_file.read_study(write()), seeds="3", only="c,a")
    assert study.seeds == (0, 1, 2)
    assert [entry.name for entry in chosen] == ["a", "c"]
    with pytest.raises(ConfigError, match=r"--seeds is 'many'; expected the number of seeds"):
        plan.select(study, seeds="many")
    with pytest.raises(ConfigError, match=r"--only has 'z', no entry of toys; allowed are a, b, c"):
        plan.select(study, only="a,z")
