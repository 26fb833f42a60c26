"""The built wheel, installed with and without extras as a user would."""

import os
import subprocess
import sys
import venv
import zipfile
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


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {
        "prefactor_core",
        "prefactor_redis",
        "prefactor_rabbitmq",
        "prefactor_worker",
        "prefactor_emulator",
    }
    assert [name for name in names if "demo" in name] == []


@pytest.mark.timeout(240)
def test_the_core_works_alone_and_the_commands_say_what_they_need(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    binaries = tmp_path / "bin"
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    run(str(binaries / "python"), "-I", "-c", CORE_ALONE)
    module = (str(binaries / "python"), "-m")
    for extra, command in (
        ("emulator", (str(binaries / "prefactor-emulator"),)),
        ("emulator", (*module, "prefactor_emulator")),
        ("worker", (str(binaries / "prefactor-worker"),)),
        ("worker", (*module, "prefactor_worker")),
    ):
        refused = subprocess.run(
            [*command, "--help"], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
        )
        assert refused.returncode == 2, command
        assert refused.stderr == f"prefactor-{extra} needs typer: pip install 'prefactor-core[{extra}]'\n"
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[emulator]")
    assert "Serve the Prefactor HTTP API" in run(str(binaries / "prefactor-emulator"), "--help").stdout
    run(str(binaries / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[worker]")
    for url, driver, extra in (("redis://h", "Redis", "redis"), ("amqp://h", "RabbitMQ", "rabbitmq")):
        refused = subprocess.run(
            [str(binaries / "prefactor-worker"), "run", "--transport", url],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=os.environ | {"PREFACTOR_API_TOKEN": "token"},
        )
        assert refused.returncode == 2, url
        needed = f"the driver for {driver} is not installed: pip install 'prefactor-core[{extra}]'\n"
        assert refused.stderr.endswith(needed), refused.stderr
