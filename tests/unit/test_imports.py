"""What imports what: nothing before it is needed, httpx in one module, and no cycles."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import prefactor_core

HEAVY = {"aio_pika", "aiormq", "click", "httpx", "pika", "prometheus_client", "pygments", "redis", "rich"}
HEAVY |= {"starlette", "testcontainers", "typer", "uvicorn"}
OF_THE_ENVIRONMENT = {"dotenv", "pydantic_settings"}
"""What only ``from_env`` needs."""
ABOVE = {"prefactor_emulator", "prefactor_rabbitmq", "prefactor_redis", "prefactor_worker"}

ROOT = Path(prefactor_core.__file__).parent.parent


def _trees(folder: str) -> dict[str, ast.Module]:
    """Return the modules of a package in that folder, parsed, by their names."""
    package = ROOT / folder
    paths = sorted(package.rglob("*.py"))
    assert paths, folder
    names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in paths]
    return {
        name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8"))
        for name, path in zip(names, paths, strict=True)
    }


TREES = _trees("prefactor_core")


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


def _imported(tree: ast.Module, *, at_import: bool = False) -> set[str]:
    """Return the modules that a module imports, and the names that it takes from them."""
    names: set[str] = set()
    for node in _statements(tree, at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"from {'.' * node.level}{node.module or ''} is relative"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _loaded_by(program: str) -> set[str]:
    """Return what a fresh interpreter has imported once it has run a program, without a word."""
    command = [sys.executable, "-c", f"{program}; import sys, json; print(json.dumps(sorted(sys.modules)))"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert done.stderr == b""
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_no_driver_and_no_http() -> None:
    loaded = _top_level(_loaded_by("import prefactor_core"))
    assert "prefactor_core" in loaded
    assert loaded & (HEAVY | OF_THE_ENVIRONMENT | ABOVE) == set()


def test_what_reads_the_environment_comes_with_the_first_to_ask_for_it() -> None:
    imported = "from prefactor_core import PrefactorCoreConfig as Config"
    in_code = _loaded_by(f"{imported}; Config(http_config={{'api_token': 'x'}})")
    assert _top_level(in_code) & OF_THE_ENVIRONMENT == set()
    loaded = _top_level(_loaded_by(f"{imported}; Config.from_env(None)"))
    assert loaded >= OF_THE_ENVIRONMENT
    assert loaded & (HEAVY | ABOVE) == set()


def test_the_core_needs_only_what_it_declares_and_nothing_above_it(subtests: pytest.Subtests) -> None:
    needed = {"httpx", "pluggy", "prefactor_core", "pydantic", "pydantic_core", "pydantic_settings"}
    for module, tree in TREES.items():
        with subtests.test(module):
            imported = _top_level(_imported(tree))
            assert imported & ABOVE == set()
            # What is shipped to be subclassed by tests is imported by nothing else.
            for_tests = module.startswith("prefactor_core.testing")
            assert imported - sys.stdlib_module_names <= needed | ({"pytest"} if for_tests else set())
            uses_it = any(name.startswith("prefactor_core.testing") for name in _imported(tree))
            assert for_tests or not uses_it


def test_httpx_is_imported_in_one_module() -> None:
    users = {module for module, tree in TREES.items() if "httpx" in _top_level(_imported(tree))}
    assert users == {"prefactor_core.api.http"}


@pytest.mark.parametrize(
    ("folder", "neighbours"),
    [
        ("transports/prefactor_redis", set()),
        ("transports/prefactor_rabbitmq", set()),
        ("worker/prefactor_worker", set()),  # transports come in through the plugin manager
        ("emulator/prefactor_emulator", set()),
    ],
)
def test_what_stands_on_the_core_does_not_lean_on_its_neighbours(folder: str, neighbours: set[str]) -> None:
    may_import = {"prefactor_core", folder.rpartition("/")[2], *neighbours}
    for module, tree in _trees(folder).items():
        ours = {name for name in _top_level(_imported(tree)) if name.startswith("prefactor_")}
        assert ours <= may_import, module


@pytest.mark.parametrize(
    "folder", ["transports/prefactor_redis", "transports/prefactor_rabbitmq", "examples/transport"]
)
def test_a_transport_imports_nothing_else_of_the_core(folder: str) -> None:
    for module, tree in _trees(folder).items():
        ours = {name.rpartition(".")[0] for name in _imported(tree) if name.startswith("prefactor_core")}
        assert ours <= {"prefactor_core.transport", "prefactor_core.testing"}, module


def test_the_folders_of_the_emulator_import_each_other_in_one_direction() -> None:
    graph: dict[str, set[str]] = {}
    for module, tree in _trees("emulator/prefactor_emulator").items():
        folder = ".".join(module.split(".")[1:2])
        used = {name.split(".")[1] for name in _imported(tree) if name.startswith("prefactor_emulator.")}
        graph.setdefault(folder, set()).update(used - {folder})
    assert {"faults", "http", "pages", "rules", "storage", "verify"} <= set(graph)
    tuple(TopologicalSorter(graph).static_order())


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        names = _imported(tree, at_import=True)
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
