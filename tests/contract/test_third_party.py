"""The example transport, as a third party would: its own wheel, its own entry point, the whole contract."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefactor_core.testing import TransportContract

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "transport"
PROCESSES = 4
INSTALLED = """
import sys, prefactor_core, prefactor_sqlite
from importlib.metadata import distribution, entry_points
from prefactor_core import PrefactorCoreConfig
from prefactor_core.plugins import create_queue
for module in (prefactor_core, prefactor_sqlite):
    assert module.__file__.startswith(sys.prefix), module.__file__
(entry,) = entry_points(group="prefactor.transports", name="sqlite")
assert entry.dist.name == "prefactor-transport-sqlite", entry.dist
queue = create_queue("sqlite:///tmp/not-made-yet.db", PrefactorCoreConfig())
print(queue.broker.name)
"""


def run(*command: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the Python of a new environment with both wheels in it, and this one's tools behind them."""
    wheels, home = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels))
    with ThreadPoolExecutor() as together:
        builds = [together.submit(run, *build, str(source)) for source in (PROJECT, EXAMPLE)]
        venv.create(home)
        for built in builds:
            built.result()
    python = str(home / "bin" / "python")
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*install, *map(str, wheels.glob("*.whl")))
    # pytest and what the core depends on; a line in a .pth file does not bring along the .pth files there,
    # so this project's editable installation stays out.
    (packages / "tools.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_it_is_found_by_its_entry_point(python: str) -> None:
    assert run(python, "-I", "-c", INSTALLED).strip() == "sqlite:///tmp/not-made-yet.db?prefix=prefactor"


def test_it_passes_the_contract(python: str, tmp_path: Path) -> None:
    """In several processes at a time: most of its tests wait for most of the time."""
    names = [name for name in dir(TransportContract) if name.startswith("test_")]
    assert len(names) > 50
    home = tmp_path / "home"  # without the source, so that what is imported is what was installed
    shutil.copytree(EXAMPLE / "tests", home / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", home)

    def passes(part: int) -> None:
        some = [f"tests/test_contract.py::TestSqlite::{name}" for name in names[part::PROCESSES]]
        options = ("-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / f'files-{part}'}")
        said = run(python, "-m", "pytest", *options, *some, cwd=home)
        assert f"{len(some)} passed in " in said.splitlines()[-1]

    with ThreadPoolExecutor(PROCESSES) as together:
        list(together.map(passes, range(PROCESSES)))
