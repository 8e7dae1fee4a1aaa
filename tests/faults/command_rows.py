"""Commands and config files that are wrong: rows of (id, action, exit code, message)."""

import dataclasses

import jax
import ml_collections

import eval as eval_command
import train as train_command
from polarjax import data
from polarjax.core import PolarjaxError
from polarjax.engine import checkpoints, logs
from polarjax.engine.flags import parse_flags
from polarjax.engine.workdir import claim
from polarjax.reports.evaluate import open_data
from polarjax.reports.runs import Run
from tests.engine import runs


def train(*arguments):
    return lambda at: train_command.main([argument.format(at=at.folder) for argument in arguments])


def config_file(text, *arguments):
    def action(place):
        (place.folder / "a.py").write_text(text)
        return train("--config", "{at}/a.py", *arguments)(place)

    return action


def evaluate(*arguments):
    def action(place):
        code = eval_command.main([argument.format(at=place.folder) for argument in arguments])
        error = PolarjaxError(place.printed())
        error.exit_code = code
        raise error

    return action


def reopened(change):
    """Opens the sessions alpha and beta for a run whose checkpoint says something else of them."""

    def action(place):
        section = place.section(place.write("alpha"), place.write("beta"))
        info = data.build(section).info
        config = ml_collections.ConfigDict({"data": section})
        sessions = tuple(change(list(info.sessions)))
        run = Run(
            place.folder, 4, "latest", config, dataclasses.replace(info, sessions=sessions), {}, {}, None
        )
        with open_data(run):
            return "opened"

    return action


def with_missing_session(sessions):
    return [*sessions, dataclasses.replace(sessions[0], name="gamma")]


def with_more_units(sessions):
    return [
        sessions[0],
        dataclasses.replace(sessions[1], unit_ids=(*sessions[1].unit_ids, "beta-3", "beta-4")),
    ]


def laptop(place):
    place.stop(5)
    state, meta = checkpoints.restore(place.folder / "run")
    return meta["step"], type(state.params["core"]["kernel"]).__module__


def unknown_flag(place):
    return parse_flags(["--workdri", "x"], {"workdir": ""}, "")


def no_accelerator(reason):
    def refuse():
        raise reason

    def action(place):
        place.monkeypatch.setenv("JAX_PLATFORMS", "cuda")
        place.monkeypatch.setattr(jax, "devices", refuse)
        return train("--config", "configs/polar.py")(place)

    return action


def no_tensorboard(place):
    (place.folder / "run").mkdir()
    (place.folder / "run" / "tensorboard").write_text("")
    printed = place.run()
    return printed.count("warning"), len(runs.lines_of(place.folder / "run")), printed


def tensorboard_that_fills_up(place):
    opened = logs.EventFile.__init__

    def full(self, path):
        opened(self, path)
        self._file.close()
        self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    place.monkeypatch.setattr(logs.EventFile, "__init__", full)
    printed = place.run()
    return printed.count("warning"), len(runs.lines_of(place.folder / "run")), printed


def spaces(place):
    place.folder = place.folder / "a folder"
    place.run()
    return place.steps()


TYPO = """
from configs import polar
def get_config():
    config = polar.get_config()
    config.train.num_step = 3
    return config
"""

ROWS = [
    ("U1", unknown_flag, 2, r"unknown flag --workdri; did you mean 'workdir'"),
    (
        "U1 nested",
        train("--config", "configs/polar.py", "--config.train.num_step=3"),
        2,
        r"^configs/polar\.py: .*config\.train has no 'num_step'; did you mean 'num_steps'",
    ),
    (
        "U2",
        config_file(TYPO),
        2,
        r"a\.py: config\.train\.num_step is not an option; did you mean 'num_steps'",
    ),
    ("U3", train("--config", "configs/polar.py", "lr=3"), 2, "stray argument 'lr=3'"),
    ("U3 twice", train("--workdir=a", "--workdir=b"), 2, "--workdir is given twice, as 'a' and 'b'"),
    ("U4", train("--config", "{at}/none.py"), 2, r"none\.py: no such config file"),
    ("U4 folder", train("--config", "{at}"), 2, "no such config file"),
    ("U4 syntax", config_file("def get_config(:\n"), 2, r"a\.py:1: invalid syntax"),
    ("U5", lambda at: claim(at.write() / "spikes.npy").__enter__(), 4, "--workdir .* cannot be written"),
    ("U5 spaces", spaces, 0, r"^\[8, 12\]$"),
    (
        "U6",
        no_accelerator(RuntimeError("Unable to initialize\nbackend 'cuda'")),
        2,
        r"^JAX_PLATFORMS is 'cuda', and JAX finds no such device here \(Unable to initialize backend 'cuda'\); "
        r"found are \d+ CPU cores: set JAX_PLATFORMS=cpu to use them",
    ),
    ("U6 plugin", no_accelerator(AssertionError()), 2, r"its plugin is not installed\); found are \d+ CPU"),
    (
        "U7",
        no_tensorboard,
        0,
        r"^\(1, 6, .*tensorboard: cannot be written for TensorBoard \(File exists\); training",
    ),
    (
        "U7 full",
        tensorboard_that_fills_up,
        0,
        r"^\(1, 6, .*for TensorBoard \(No space left on device\); training",
    ),
    ("U8", laptop, 0, r"^\(5, 'numpy'\)$"),
    ("U10", evaluate("--workdir", "{at}/absent"), 4, "absent does not exist; expected the directory"),
    (
        "U10 session",
        reopened(with_missing_session),
        3,
        r"trained on sessions \['alpha', 'beta', 'gamma'\], found \['alpha', 'beta'\]; .* put it back$",
    ),
    (
        "U10 units",
        reopened(with_more_units),
        3,
        r"^session beta \(.*/beta\) has 3 units, the checkpoint was trained on 5; different: \['beta-3', 'beta-4'\]\.",
    ),
    (
        "U10 tier",
        evaluate("--workdir", "{at}", "--tier", "tests"),
        2,
        "--tier is 'tests'; did you mean 'test'",
    ),
]
