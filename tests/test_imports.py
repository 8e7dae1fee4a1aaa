"""Who may import whom: data flows one way, and the engine knows no model."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "polarjax"
MODULES = sorted(PACKAGE.rglob("*.py"))
ALL_BUT_THE_LOOP = {
    "core",
    "ops",
    "losses",
    "metrics",
    "models",
    "envs",
    "planning",
    "data",
    "systems",
    "engine",
    "interop",
    "reports",
}
MAY_IMPORT = {
    "core": set(),
    "ops": {"core"},
    "losses": {"core"},
    "metrics": {"core"},
    "loss_weights": {"core"},
    "models": {"ops", "core"},
    "envs": {"core"},
    "planning": {"ops", "core"},
    "data": {"envs", "ops", "core"},
    "systems": {"models", "losses", "loss_weights", "metrics", "planning", "envs", "ops", "core"},
    "engine": {"core"},
    "interop": {"models", "ops", "core"},
    "reports": ALL_BUT_THE_LOOP,
    "studies": {"reports", "engine", "core"},
    "twin": ALL_BUT_THE_LOOP,
    "inspect": {"engine", "core"},
    "doctor": {"systems", "engine", "data", "core"},
    "__init__": {"core", "twin"},
}


def imported_modules(path: pathlib.Path) -> set[str]:
    """Returns the modules of polarjax that a file imports, with dots, without the leading 'polarjax.'."""
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*here[: -node.level], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.removeprefix("polarjax.") for name in names if name.startswith("polarjax.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_folder_may(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    allowed = MAY_IMPORT[parts[0]] | {parts[0]}
    imported = imported_modules(path)
    assert {name for name in imported if name.split(".")[0] not in allowed} == set()
    if parts[0] != "engine":
        assert {name for name in imported if name.startswith("engine.loop")} == set()


def test_systems_do_not_import_each_other():
    for path in (PACKAGE / "systems").glob("*.py"):
        if path.stem != "__init__":
            assert {name for name in imported_modules(path) if name.startswith("systems")} == set(), path.name


def test_flax_modules_live_in_models_alone():
    others = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != "models"]
    assert [str(path) for path in others if re.search(r"\blinen\b", path.read_text())] == []
