"""The shape of the code: which module may import which, where Prefect may appear, and what no file may hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("deployments", "flows", "tasks")
LONGEST = 350

# From the top down. A module imports its own layer and those under it; a root module of `tasks` that is in no other
# line belongs to the lowest. Rooms stand beside each other: none imports another.
ROOMS = ("tasks.extract", "tasks.transform", "tasks.load", "tasks.observe")
LAYERS = (
    ("deployments",),
    ("flows",),
    ("tasks.recovery", "tasks.steps", "tasks.graph", "tasks.graph_run", "tasks.watch"),
    ("tasks.pipeline",),
    ("tasks.running", "tasks.health"),
    ("tasks.declaration", "tasks.report"),
    ROOMS,
    ("tasks.state",),
    ("tasks.dialects",),
    ("tasks",),
)

WITH_PREFECT = ("deployments", "flows", "tasks.observe", "tasks.recovery.backfill.submission", "tasks.steps")
WITH_PREFECT_IN_FUNCTIONS = ("tasks.connections", "tasks.secret_block", "tasks.shared_rate")

FILES = sorted(file for folder in OURS for file in (ROOT / folder).rglob("*.py"))
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def layer(module: str) -> int:
    """How far down a module stands; 0 is the top."""
    return next(depth for depth, packages in enumerate(LAYERS) if inside(module, packages))


def room(module: str) -> str | None:
    return next((name for name in ROOMS if inside(module, (name,))), None)


def allowed(importer: str, imported: str) -> bool:
    if room(importer) is not None and room(imported) is not None:
        return room(importer) == room(imported)
    return layer(importer) <= layer(imported)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The full names of what is imported; `from tasks import settings` is `tasks.settings`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from outside_functions(child)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    wrong = {name for name in imports(ast.walk(tree(module))) if inside(name, OURS) and not allowed(module, name)}
    assert wrong == set()


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("tasks.extract.table", "tasks.load.commit"),
        ("tasks.state.ledger", "tasks.extract.changes"),
        ("tasks.window", "tasks.state.tables"),
        ("tasks.load.commit", "tasks.running.run"),
        ("tasks.running.run", "flows.flights"),
        ("flows.flights", "deployments.cli"),
    ],
)
def test_the_rule_refuses_an_import_that_points_up_or_sideways(importer: str, imported: str) -> None:
    assert not allowed(importer, imported)


@pytest.mark.parametrize("module", [name for name in MODULES if not inside(name, WITH_PREFECT)])
def test_prefect_stays_in_the_thin_files(module: str) -> None:
    nodes = outside_functions(tree(module)) if module in WITH_PREFECT_IN_FUNCTIONS else ast.walk(tree(module))
    assert [name for name in imports(nodes) if name.split(".")[0] in ("prefect", "prefect_sqlalchemy")] == []


@pytest.mark.parametrize("module", [name for name in MODULES if inside(name, ("tasks", "flows"))])
def test_only_settings_reads_the_environment(module: str) -> None:
    names = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert module == "tasks.settings" or not names & {"environ", "getenv"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_holds_a_second_noun(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST


def test_a_flow_file_shadows_no_module() -> None:
    # Prefect puts the entrypoint's folder first on sys.path, so `flows/json.py` would be everybody's `json`.
    taken = set(packages_distributions()) | sys.stdlib_module_names | {*OURS, "tests"}
    assert {file.stem for file in (ROOT / "flows").glob("*.py")} & taken == set()


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_this_machine_or_a_package_index() -> None:
    # Written so that this file does not match itself.
    index = re.compile(r"(?:extra-)?index[-]url|find[-]links|/packages/[0-9a-f]{2}/[0-9a-f]{2}/")
    machine = (f"{ROOT}/", f"{Path.home()}/")
    wrong = []
    for file in tracked():
        text = file.read_text(errors="replace")
        if index.search(text) or any(path in text for path in machine):
            wrong.append(str(file.relative_to(ROOT)))
    assert wrong == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-image.lock", "requirements-debezium.lock"])
def test_a_lock_holds_pins_and_hashes_only(lock: str) -> None:
    line = re.compile(r"#.*|[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [text for text in (ROOT / lock).read_text().splitlines() if not line.fullmatch(text)] == []


def test_the_image_runs_what_the_tests_ran() -> None:
    pin = re.compile(r"^([\w.-]+)==([\w.!+-]+)", re.MULTILINE)
    everything = set(pin.findall((ROOT / "requirements.lock").read_text()))
    assert set(pin.findall((ROOT / "requirements-image.lock").read_text())) <= everything
