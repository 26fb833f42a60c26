"""The built wheel, installed with and without extras as a user would."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CORE_ALONE = """
import sys, prefactor_core
from prefactor_core.plugins import installed_transports
assert installed_transports() == [
    "amqp",
    "amqps",
    "memory",
    "redis",
    "redis+cluster",
    "redis+sentinel",
    "rediss",
], installed_transports()
assert (prefactor_core.__file__ or "").startswith(sys.prefix), prefactor_core.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)
    )
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.timeout(240)
def test_the_core_works_alone_and_the_commands_say_what_they_need(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    binaries = tmp_path / "bin"
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    run(str(binaries / "python"), "-I", "-c", CORE_ALONE)
    for extra in ("emulator", "worker"):
        refused = subprocess.run(
            [str(binaries / f"prefactor-{extra}"), "--help"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert refused.returncode == 2
        assert refused.stderr == f"prefactor-{extra} needs typer: pip install 'prefactor-core[{extra}]'\n"
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[emulator]")
    assert "Serve the Prefactor HTTP API" in run(str(binaries / "prefactor-emulator"), "--help").stdout
