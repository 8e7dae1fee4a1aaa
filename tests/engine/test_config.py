import pytest

from polarjax.core import ConfigError
from polarjax.engine import config
from tests.engine import toy

FILE = """
import ml_collections
def get_config(argument="plain"):
    if argument not in ("plain", "quick"):
        raise ValueError(f"argument {argument!r}: allowed are 'plain' and 'quick'")
    config = ml_collections.ConfigDict(%r)
    config.train.num_steps = 12 if argument == "plain" else 3
    %s
    return config
"""


@pytest.fixture
def write(tmp_path):
    """Writes a config file whose function holds one more line."""

    def write(line="pass", name="toy.py"):
        path = tmp_path / name
        path.write_text(FILE % (toy.make_config().to_dict(), line))
        return path

    return write


def test_a_config_is_loaded_with_its_argument_and_overrides_of_every_type(write):
    path = write("config.data.names = ('a',); config.data.shuffle = True; config.data.extra = None")
    overrides = {
        "train.num_steps": "5",
        "optim.clip_norm": "3",
        "optim.b1": "5e-1",
        "optim.schedule": "constant",
        "optim.groups.core": "None",
        "data.names": "('x', 'y')",
        "data.shuffle": "false",
        "data.extra": "7",
    }
    loaded = config.load(f"{path}:quick", overrides)
    assert (loaded.train.num_steps, loaded.optim.clip_norm, loaded.optim.b1) == (5, 3.0, 0.5)
    assert (loaded.optim.schedule, loaded.optim.groups.core) == ("constant", None)
    assert (loaded.data.names, loaded.data.shuffle, loaded.data.extra) == (("x", "y"), False, 7)
    assert config.load(f"{path}:quick", {}).train.num_steps == 3
    assert config.load(str(path), {}).train.num_steps == 12
    assert loaded.is_locked


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.num_step", "5", r"config\.train has no 'num_step'; did you mean 'num_steps'\?"),
        ("trian.num_steps", "5", r"config has no 'trian'; did you mean 'train'\?"),
        ("seed.x", "5", r"config\.seed is 3, a value and no section"),
        ("train.num_steps", "5.5", r"--config\.train\.num_steps must be like 12, got '5\.5'"),
        ("train.num_steps", "many", r"must be like 12, got 'many'"),
        ("train.num_steps", "None", r"must be like 12, got 'None'"),
        ("train.num_steps", "True", r"must be like 12, got 'True'"),
        ("train.num_steps", "0", r"config\.train\.num_steps must be a whole number in \[1, 1e\+09\], got 0"),
        (
            "train.floor_steps",
            "-1",
            r"config\.train\.floor_steps must be a whole number in \[0, inf\), got -1",
        ),
        ("optim.b1", "nan", r"must be like 0\.9, got 'nan'"),
        ("optim.b1", "1e999", r"must be like 0\.9, got '1e999'"),
        ("optim.b1", "-0.1", r"config\.optim\.b1 must be a finite number in \[0, 1\), got -0\.1"),
        ("optim.groups", "5", r"--config\.optim\.groups is a section with core, readout; set one of them"),
        ("seed", "-1", r"config\.seed must be a whole number in \[0, 2\*\*32\), got -1"),
    ],
)
def test_a_wrong_override_names_the_file_the_key_and_what_is_allowed(write, name, text, message):
    path = write()
    with pytest.raises(ConfigError, match=message) as error:
        config.load(str(path), {name: text})
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "config.train.num_step = 4",
            r"config\.train\.num_step is not an option; did you mean 'num_steps'\?",
        ),
        ("config.trian = 4", r"config\.trian is not a section; did you mean 'train'\?"),
        ("del config.loss", r"config\.loss is missing; the sections are system, seed, init_from, data"),
        ("del config.train.log_every", r"config\.train\.log_every is missing; config\.train needs num_steps"),
        (
            "config.optim.eps = float('nan')",
            r"config\.optim\.eps must be a finite number in \(0, 1\], got nan",
        ),
        ("config.optim.warmup_steps = 50", r"warmup_steps is 50, longer than config\.train\.num_steps, 12"),
        ("config.seed = None", r"config\.seed must be a whole number"),
        (
            "config.init_from = None",
            r"config\.init_from must be the work directory of a trained run, .*got None",
        ),
        ("config = {}", r"get_config must return an ml_collections\.ConfigDict, got dict"),
        ("undefined", r"toy\.py:8: NameError: name 'undefined' is not defined"),
        ("x = = 3", r"toy\.py:8: invalid syntax"),
        ("return", r"must return an ml_collections\.ConfigDict, got NoneType"),
    ],
)
def test_a_mistake_inside_a_config_file_names_the_file(write, line, message):
    path = write(line)
    with pytest.raises(ConfigError, match=message) as error:
        config.load(str(path), {})
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_an_argument_that_the_config_does_not_know_is_refused_in_its_words(write):
    with pytest.raises(
        ConfigError, match=r"toy\.py:5: ValueError: argument 'quik': allowed are 'plain' and 'quick'"
    ):
        config.load(f"{write()}:quik", {})


def test_a_missing_config_file_names_the_nearest(write, tmp_path):
    write(name="polar.py")
    with pytest.raises(ConfigError, match=r"polr\.py: no such config file; did you mean '.*polar\.py'\?"):
        config.load(str(tmp_path / "polr.py"), {})
    with pytest.raises(ConfigError, match="no such config file"):
        config.load(str(tmp_path), {})
    with pytest.raises(ConfigError, match=r"--config is missing; for example --config configs/"):
        config.load(None, {})


def test_a_file_without_get_config_is_named(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"a\.py: the config file must define get_config"):
        config.load(str(tmp_path / "a.py"), {})


def test_the_default_workdir_is_named_after_the_config_and_its_argument():
    assert str(config.default_workdir("configs/polar.py:quick")) == "runs/polar-quick"
    assert str(config.default_workdir("configs/polar.py")) == "runs/polar"
