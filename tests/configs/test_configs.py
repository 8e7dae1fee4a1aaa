"""Every config: it loads, fits its model, and the distinct ones train, report and resume."""

import contextlib
import json
import pathlib
import runpy
import shutil

import jax
import numpy as np
import pytest

import polarjax
import polarjax.data
import train as command
from polarjax import systems
from polarjax.core import Batch, DataInfo, SessionInfo
from polarjax.engine import checkpoints, config, interruption
from polarjax.engine.optim import check_groups, label_parameters
from polarjax.engine.state import flatten
from polarjax.reports import evaluate, probes

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
POLAR = [path for path in CONFIGS if path.stem.startswith("polar")]
RESNET, FLOOR = (ROOT / "configs" / f"{name}.py" for name in ("resnet_convgru", "linear_nonlinear"))
FORMS = [
    *((path, "") for path in CONFIGS),
    *((path, "quick") for path in (*POLAR, RESNET, FLOOR)),
    *((RESNET, variant) for variant in ("learned", "learned-quick")),
    *((ROOT / "configs" / "macaque_v1.py", variant) for variant in ("reference", "resnet_convgru")),
]
SMALL = {
    "data.virtual.minutes": "0.5",
    "data.burn_in": "4",
    "data.predicted": "12",
    "data.batch_size": "8",
    "optim.warmup_steps": "1",
    "train.num_steps": "4",
    "train.eval_every": "4",
    "train.save_every": "2",
    "train.eval_batches": "1",
}
SMALL_POLAR = {"n_levels": "1", "n_pairs": "2", "kernel_size": "5", "code_width": "4"}
SMALL_MODELS = {
    "resnet_convgru": {"channels": "(2,2)", "kernel_sizes": "(3,3)", "hidden": "2", "code_width": "4"},
    "linear_nonlinear": {"n_lags": "5"},
}
INFO = DataInfo(
    tuple(
        SessionInfo(name, "a", tuple(map(str, range(n))), (0.1,) * n, ((0.1, 0.0),) * n, "", "")
        for name, n in (("one", 3), ("two", 2))
    ),
    240.0,
    37.5,
    (51, 51, 1),
)


def load(path, variant):
    return config.load(f"{path}:{variant}" if variant else str(path), {})


@pytest.mark.parametrize(("path", "variant"), FORMS, ids=lambda part: getattr(part, "stem", part or "full"))
def test_a_config_fits_its_data_its_model_and_its_optimizer(path, variant):
    settings = load(path, variant)
    section = polarjax.data.DataConfig.of(settings.data)
    for run in filter(None, (settings, systems.floor(settings))):
        _, optim = config.validate(run)
        system = systems.build(run, INFO)
        height, width, channels = INFO.frame_shape
        frames, bins = section.burn_in + section.predicted, (4, section.predicted, INFO.max_units)
        shapes = ((4, frames, height, width, channels), (4, frames, 2), bins, bins)
        batch = Batch(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes))
        params = jax.eval_shape(system.init, jax.random.key(0), batch)["params"]
        check_groups(optim.groups, label_parameters(system.param_group, params))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("path", POLAR, ids=lambda path: path.stem)
def test_the_full_configs_have_the_documented_size(path):
    settings = load(path, "")
    sizes = [settings.model.kwargs[name] for name in ("n_levels", "n_pairs", "kernel_size")]
    assert (*sizes, settings.data.batch_size) == (4, 64, 15, 384)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("polar", (10.0, 40.0, 0.74, 0.95)),
        ("polar_relaxed", (5.0, 20.0, 0.80, 0.90)),
        ("polar_very_relaxed", (2.0, 10.0, 0.85, 0.85)),
        ("polar_behavior_only", (10.0, 40.0, 0.74, 0.95)),
    ],
)
def test_the_constants_start_where_the_documents_say(name, constants):
    kwargs = load(ROOT / "configs" / f"{name}.py", "quick").model.kwargs
    assert (kwargs.fixation_rate, kwargs.saccade_rate, kwargs.alpha_fast, kwargs.alpha_slow) == constants


@pytest.mark.parametrize("variant", ["", "quick"])
def test_the_gaze_of_behavior_only_acts_on_the_dynamics_and_on_no_gain(variant):
    kwargs = load(ROOT / "configs" / "polar_behavior_only.py", variant).model.kwargs
    assert (kwargs.saccade_gate, kwargs.pose_memory, kwargs.get("gaze_gain")) == ("learned", True, False)


@pytest.mark.parametrize(("variant", "channels"), [("", (128, 256)), ("learned", (8, 256, 128))])
def test_the_full_baseline_has_the_documented_size_and_recipe(variant, channels):
    settings = load(RESNET, variant)
    kwargs, optim = settings.model.kwargs, settings.optim
    assert (kwargs.channels, kwargs.hidden, kwargs.code_width) == (channels, 128, 32)
    assert kwargs.get("frontend_filters", 0) == (4 if variant else 0)
    assert optim.groups.core.learning_rate == 2 * optim.groups.readout.learning_rate == 2e-3
    assert {group.weight_decay for group in optim.groups.values()} == {5e-5}
    assert (optim.clip_norm, optim.warmup_steps) == (10.0, 10 * 1024)
    assert settings.loss.weights.feature_l1 == 1e-7
    # Widths fall from 10 to 1.5 places of the last map, which are 4 pixels of a frame apart, in half of the run.
    per_place = 37.0 / settings.model.kwargs.strides[0] / max(settings.model.kwargs.pools[1], 1)
    low, first, last, until = optim.bounds.width_deg
    np.testing.assert_allclose(np.array([low, first, last]) * per_place, [1e-3, 10.0, 1.5])
    np.testing.assert_allclose(kwargs.initial_width * per_place, 10.0)
    assert until == 0.5


@pytest.mark.parametrize(
    "path", [path for path in POLAR if "jepa_pre" not in path.stem], ids=lambda path: path.stem
)
def test_the_full_configs_have_the_documented_recipe(path):
    settings = load(path, "")
    optim, groups = settings.optim, settings.optim.groups
    assert (optim.b1, optim.b2, optim.eps, optim.clip_norm) == (0.9, 0.95, 1e-8, 5.0)
    assert (optim.warmup_steps, optim.schedule, settings.train.num_steps) == (15 * 1024, "cosine", 100 * 1024)
    assert (groups.core.learning_rate, groups.core.weight_decay) == (1.5e-3, 5e-5)
    if groups.readout is not None:
        assert (groups.readout.learning_rate, groups.readout.weight_decay) == (1e-3, 5e-5)
    for name in ("lambda_fix", "lambda_sac", "alpha_fast", "alpha_slow"):
        if groups.get(name) is not None:
            np.testing.assert_allclose(groups[name].learning_rate, 0.1 * groups.core.learning_rate)
            assert groups[name].weight_decay == 0


@pytest.mark.parametrize("path", [RESNET, FLOOR], ids=lambda path: path.stem)
def test_a_variant_that_is_unknown_is_refused_with_those_that_are_not(path):
    with pytest.raises(ValueError, match="unknown variant 'slow'; allowed are '', 'quick'"):
        runpy.run_path(str(path))["get_config"]("slow")


class Trained(Exception):
    """Raised in place of a report that is not looked at."""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags that make a config tiny; all runs share one generated recording."""
    cache = tmp_path_factory.mktemp("cache")
    small = [f"--config.{name}={value}" for name, value in SMALL.items()]
    return [*small, f"--config.data.virtual.cache={cache}"]


@pytest.fixture
def train(flags, monkeypatch):
    """Returns a function that runs train.py; at step `stop_at` of any of its runs a signal comes."""

    def run(name, workdir, *, stop_at=None, floor_steps=0, reports=False):
        def no_report(folder):
            raise Trained(folder)

        with monkeypatch.context() as patch:
            watch = contextlib.nullcontext(lambda step: step == stop_at)
            patch.setattr(interruption, "watch_signals", lambda: watch)
            if not reports:
                patch.setattr(evaluate, "write_report", no_report)
            floor = f"--config.train.floor_steps={floor_steps}"
            kwargs = SMALL_MODELS.get(name, SMALL_POLAR).items()
            model = [f"--config.model.kwargs.{key}={value}" for key, value in kwargs]
            place = [f"--config={ROOT}/configs/{name}.py:quick", f"--workdir={workdir}"]
            command.main([*place, floor, *flags, *model])

    return run


def assert_same_end(left, right, step):
    left, right = (flatten(checkpoints.restore(folder, "latest")[0]) for folder in (left, right))
    assert left["step"] == step
    assert {key: leaf.tobytes() for key, leaf in left.items()} == {
        key: leaf.tobytes() for key, leaf in right.items()
    }


def killed_at_step_2(whole, parts):
    """Copies a run as a kill between its two checkpoints would have left it."""
    shutil.copytree(whole, parts, ignore=shutil.ignore_patterns("4", "linear_nonlinear"))
    return parts


def test_a_run_killed_in_its_model_and_stopped_in_its_floor_ends_as_one_that_was_not(train, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with pytest.raises(Trained):
        train("polar_relaxed", whole, floor_steps=2)
    with pytest.raises(interruption.Interrupted, match="stopped at step 1 and saved"):
        train("polar_relaxed", killed_at_step_2(whole, parts), floor_steps=2, stop_at=1)
    train("polar_relaxed", parts, floor_steps=2, reports=True)
    assert_same_end(parts, whole, 4)
    assert_same_end(parts / "linear_nonlinear", whole / "linear_nonlinear", 2)
    report = json.loads((parts / "eval/4/report.json").read_text())
    assert report["linear_nonlinear"]["mean"] is not None
    assert report["checkpoint_chosen_by"] == "eval/bits_per_spike"
    assert (parts / "eval/4/report.html").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert printed.count("continuing from step 2") == 1
    assert "linear-nonlinear" in printed
    assert "relaxation in fixation: " in printed
    assert printed.endswith(f"report: {parts}/eval/4/report.html\n")


@pytest.mark.parametrize("name", ["resnet_convgru", "linear_nonlinear", "polar_jepa"])
def test_a_run_of_another_model_that_was_killed_ends_as_one_that_was_not(name, train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        with pytest.raises(Trained):
            train(name, folder)
        if folder == whole:
            killed_at_step_2(whole, parts)
    assert_same_end(parts, whole, 4)


def test_a_run_without_spikes_trains_and_its_report_tells_what_self_supervision_learned(
    train, tmp_path, capsys, monkeypatch
):
    """What the line of docs/self_supervision.md does, with probes on fewer segments."""
    monkeypatch.setattr(probes, "FITTED", 64)
    monkeypatch.setattr(probes, "TESTED", 32)
    folder = tmp_path / "pretrained"
    train("polar_jepa_pretrain", folder, reports=True)
    printed = capsys.readouterr().out
    assert "test trials, no units; checkpoint 4, the latest\nSelf-supervision" in printed
    assert printed.endswith(f"report: {folder}/eval/4/report.html\n")
    report = json.loads((folder / "eval/4/report.json").read_text())
    assert (report["units"], report["bits_per_spike"]["mean"]) == (0, None)
    assert 0 < report["jepa"]["trained"]["loss"] < 2
    assert 0 < report["jepa"]["probes"]["r2"]["summaries"]["scene"]["trained"] <= 1
    page = (folder / "eval/4/report.html").read_text()
    for title in ("Self-supervision", "Linear probes", "Self-supervision over training", "Learned filters"):
        assert f"<h2>{title}</h2>" in page
    assert set(polarjax.load(folder).unit_ids.values()) == {()}
