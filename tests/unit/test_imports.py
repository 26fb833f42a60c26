"""What imports what: no driver with the package, httpx in one module, and no cycles."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import prefactor_core

HEAVY = {
    "aio_pika",
    "aiormq",
    "click",
    "httpx",
    "pika",
    "prometheus_client",
    "pygments",
    "redis",
    "rich",
    "starlette",
    "testcontainers",
    "typer",
    "uvicorn",
}
ABOVE = {"prefactor_emulator", "prefactor_rabbitmq", "prefactor_redis", "prefactor_worker"}

ROOT = Path(prefactor_core.__file__).parent
TREES = {
    ".".join(("prefactor_core", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}


def _statements(tree: ast.AST, *, at_import: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield import statements; at import, those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _statements(other, at_import=True)
        else:
            yield from _statements(node, at_import=at_import)


def _imported(module: str, *, at_import: bool = False) -> set[str]:
    """Return the modules that a module imports, and the names that it takes from them."""
    names: set[str] = set()
    for node in _statements(TREES[module], at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{module} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_importing_the_package_loads_no_driver_and_no_http() -> None:
    program = "import sys, json, prefactor_core; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = _top_level(set(json.loads(done.stdout)))
    assert "prefactor_core" in loaded
    assert loaded & HEAVY == set()
    assert done.stderr == b""


@pytest.mark.parametrize("module", TREES)
def test_imports_flow_one_way(module: str) -> None:
    assert _top_level(_imported(module)) & ABOVE == set()


def test_httpx_is_imported_in_one_module() -> None:
    assert {module for module in TREES if "httpx" in _top_level(_imported(module))} == {
        "prefactor_core.api.http"
    }


@pytest.mark.parametrize("module", TREES)
def test_the_core_needs_only_what_it_declares(module: str) -> None:
    others = _top_level(_imported(module)) - sys.stdlib_module_names - {"prefactor_core"}
    needed = {"httpx", "pluggy", "pydantic", "pydantic_core", "pydantic_settings"}
    if module.startswith("prefactor_core.testing"):
        needed |= {"pytest"}  # what is shipped to be subclassed by tests, and imported by nothing else
    assert others <= needed


def test_nothing_but_tests_imports_what_is_shipped_for_tests() -> None:
    users = {
        module
        for module in TREES
        if any(name.startswith("prefactor_core.testing") for name in _imported(module))
    }
    assert all(module.startswith("prefactor_core.testing") for module in users)


@pytest.mark.parametrize(
    ("folder", "may_import"),
    [
        ("transports/prefactor_redis", {"prefactor_core", "prefactor_redis"}),
        ("transports/prefactor_rabbitmq", {"prefactor_core", "prefactor_rabbitmq"}),
        # Transports come in through the plugin manager alone.
        ("worker/prefactor_worker", {"prefactor_core", "prefactor_worker", "prefactor_emulator"}),
        ("emulator/prefactor_emulator", {"prefactor_core", "prefactor_emulator"}),
    ],
)
def test_what_stands_on_the_core_does_not_lean_on_its_neighbours(folder: str, may_import: set[str]) -> None:
    paths = sorted((ROOT.parent / folder).rglob("*.py"))
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            name.partition(".")[0]
            for node in _statements(tree, at_import=False)
            for name in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
        }
        assert {name for name in names if name.startswith("prefactor_")} <= may_import, path


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for module in TREES:
        names = _imported(module, at_import=True)
        graph[module] = {name for name in names if name in TREES}
        graph[module] |= {
            owner for name in names if name not in TREES and (owner := name.rpartition(".")[0]) in TREES
        }
    assert len(graph) > 20
    assert sum(map(len, graph.values())) > 50
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")
