"""Rules of the whole repository: safe calls, formulas that resolve, documented commands that exist, sizes."""

import ast
import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("polarjax", "configs", "studies", "benchmarks", "tests")
SOURCES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "polarjax")]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
UNSAFE_CALLS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
    "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "pd.read_pickle",
}  # fmt: skip


def relative(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def unsafe_calls(source: str) -> list[str]:
    """Returns 'line: call' of every call that runs or unpickles what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            unsafe = name in UNSAFE_CALLS or options.get("shell") == "True"
            unsafe |= options.get("allow_pickle", "False") != "False"
            unsafe |= name == "torch.load" and options.get("weights_only") != "True"
            if unsafe:
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pickle.loads(text)",
        "torch.load(path)",
        "yaml.load(stream, Loader)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
    ],
)
def test_the_scan_finds_an_unsafe_call(line):
    assert unsafe_calls(line) == [f"1: {line}"]


def test_the_scan_accepts_safe_calls():
    assert unsafe_calls("np.load(path, allow_pickle=False)\nyaml.safe_load(text)\nmodel.eval(batch)") == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_makes_no_unsafe_call(path):
    assert unsafe_calls(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_has_at_most_300_lines(path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= 300


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_the_package_hides_no_default_in_config_get(path):
    assert re.findall(r"\bconfig[\w.]*\.get\(", path.read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=relative)
def test_a_test_file_asserts_something(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    asserting = [name for name in calls if "assert" in name or name == "pytest.raises"]
    assert asserting or any(isinstance(node, ast.Assert) for node in nodes)


def formulas() -> list[tuple[str, str]]:
    """Returns (file, function) of every row of the tables in docs/formulas.md; a row without one gives ('', '')."""
    lines = (ROOT / "docs/formulas.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| ---", "| Formula |"))]
    return [(re.findall(r"`([\w/]+\.py):(\w+)`", row) or [("", "")])[0] for row in rows]


@pytest.mark.parametrize(("file", "function"), formulas(), ids=lambda part: part)
def test_a_formula_names_a_function_that_exists(file, function):
    assert (ROOT / file).is_file()
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "polarjax/ops").glob("[!_]*.py") if path.name != "backend.py"),
    ids=relative,
)
def test_a_file_of_formulas_is_in_the_table(path):
    assert relative(path) in {file for file, _ in formulas()}


def documented_commands(page: pathlib.Path) -> list[str]:
    """Returns the lines of the page's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```(?:bash|sh|shell)\n(.*?)```", page.read_text(), re.DOTALL)
    return [
        line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()
    ]


def missing_parts(command: str) -> list[str]:
    """Returns what a documented command names and the repository lacks: make targets, scripts, modules, configs."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = [name for name in re.findall(r"\bmake ([a-z]+)", command) if name not in targets]
    files = re.findall(r"\bpython (\w+\.py)", command) + re.findall(
        r"\b((?:configs|scripts|studies)/\w+\.\w+)", command
    )
    modules = [
        name.replace(".", "/") for name in re.findall(r"\bpython -m ((?:polarjax|benchmarks)[\w.]*)", command)
    ]
    files += [name + ("/__main__.py" if (ROOT / name).is_dir() else ".py") for name in modules]
    return missing + [name for name in files if not (ROOT / name).is_file()]


def test_a_command_that_names_nothing_real_is_found():
    assert missing_parts("make trian && python -m polarjax.nothing") == ["trian", "polarjax/nothing.py"]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_documented_command_exists(page):
    assert {
        command: missing_parts(command) for command in documented_commands(page) if missing_parts(command)
    } == {}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_between_pages_resolves(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_example_that_writes_a_session_runs_as_printed(tmp_path, monkeypatch, capsys):
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)[0]
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out == "example (51, 51, 1) 3 units, 120.0 Hz ()\n"
    assert (tmp_path / "sessions/example/session.json").is_file()
