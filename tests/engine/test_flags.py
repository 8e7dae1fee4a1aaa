import pytest

from polarjax.core import ConfigError
from polarjax.engine.flags import parse_flags

FLAGS = {"config": "config file", "workdir": "folder of the run"}
POSITIONAL = {"dir": "the work directory", "step": "which step", "json": "prints JSON"}


def test_flags_are_read_in_both_forms():
    arguments = [
        "--config",
        "a.py:quick",
        "--workdir=/tmp/a b=c",
        "--config.train.num_steps=5",
        "--config.seed",
        "-1",
    ]
    flags, overrides = parse_flags(arguments, FLAGS, "text")
    assert flags == {"config": "a.py:quick", "workdir": "/tmp/a b=c"}
    assert overrides == {"train.num_steps": "5", "seed": "-1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confg", "a.py"], r"^unknown flag --confg; did you mean 'config'\?$"),
        (["lr=3"], r"^stray argument 'lr=3'; options are written --name value or --name=value$"),
        (["--config", "a.py", "b.py"], r"stray argument 'b\.py'"),
        (["--config"], r"--config needs a value: --config=VALUE"),
        (["--config", "--workdir", "x"], r"--config needs a value"),
        (["--workdir=a", "--workdir", "b"], r"--workdir is given twice, as 'a' and 'b'; keep one"),
        (["--config.seed=1", "--config.seed=2"], r"--config\.seed is given twice, as '1' and '2'"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse_flags(arguments, FLAGS, "text")


def test_help_lists_the_flags_and_leaves_with_code_zero(capsys):
    with pytest.raises(SystemExit) as left:
        parse_flags(["--help"], FLAGS, "Trains a system.")
    printed = capsys.readouterr().out
    assert left.value.code == 0
    assert (
        printed.startswith("Trains a system.")
        and "--workdir" in printed
        and "--config.SECTION.NAME" in printed
    )


def test_one_value_may_stand_without_its_name_and_switches_take_none():
    for arguments in (["runs/a", "--json", "--step", "3"], ["--json", "--step=3", "runs/a"]):
        flags, _ = parse_flags(arguments, POSITIONAL, "text", positional="dir", switches=("json",))
        assert flags == {"dir": "runs/a", "step": "3", "json": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json"], r"^DIR is missing: the work directory$"),
        (["a", "b"], r"--dir is given twice, as 'a' and 'b'"),
        (["a", "--json=yes"], r"^--json takes no value, got 'yes'$"),
        (["a", "--jsn"], r"unknown flag --jsn; did you mean 'json'"),
    ],
)
def test_a_wrong_value_without_its_name_is_answered_too(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse_flags(arguments, POSITIONAL, "text", positional="dir", switches=("json",))
