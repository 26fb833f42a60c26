"""The example transport, as a third party would: its own wheel, its own entry point, the whole contract."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from prefactor_core.testing import TransportContract

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "transport"
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
        command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the Python of a new environment with both wheels in it, and this one's tools behind them."""
    wheels, home = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels))
    run(*build, str(PROJECT), str(EXAMPLE))
    venv.create(home)
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


@pytest.mark.timeout(240)
def test_it_passes_the_contract(python: str, tmp_path: Path) -> None:
    names = [name for name in dir(TransportContract) if name.startswith("test_")]
    assert len(names) > 50
    home = tmp_path / "home"  # without the source, so that what is imported is what was installed
    shutil.copytree(EXAMPLE / "tests", home / "tests")
    shutil.copy(EXAMPLE / "pyproject.toml", home)
    options = ("-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'files'}")
    said = run(python, "-m", "pytest", *options, cwd=home)
    assert f"{len(names)} passed in " in said.splitlines()[-1]
