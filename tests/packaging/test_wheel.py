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
there = installed_transports()
assert there == ["amqp", "amqps", "memory", "redis", "redis+cluster", "redis+sentinel", "rediss"], there
assert (prefactor_core.__file__ or "").startswith(sys.prefix), prefactor_core.__file__
"""


def run(*command: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env=os.environ | variables
    )
    assert done.returncode == status, (command, done.stderr)
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*build, "--wheel-dir", str(folder), str(PROJECT))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    product = {"prefactor_core", "prefactor_redis", "prefactor_rabbitmq"}
    assert packages == product | {"prefactor_worker", "prefactor_emulator"}
    assert {name.split("/")[0] for name in names if name.endswith("/py.typed")} == packages
    assert [name for name in names if "demo" in name] == []


def test_the_core_works_alone_and_the_commands_say_what_they_need(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # away from the source
    venv.create(tmp_path, with_pip=True)
    python, emulator, worker = (
        str(tmp_path / "bin" / name) for name in ("python", "prefactor-emulator", "prefactor-worker")
    )
    install = (python, "-m", "pip", "install", "--quiet")
    run(*install, str(wheel))
    run(python, "-I", "-c", CORE_ALONE)
    for extra, command in (
        ("emulator", (emulator,)),
        ("emulator", (python, "-m", "prefactor_emulator")),
        ("worker", (worker,)),
        ("worker", (python, "-m", "prefactor_worker")),
    ):
        refused = run(*command, "--help", status=2)
        assert refused.stderr == f"prefactor-{extra} needs typer: pip install 'prefactor-core[{extra}]'\n"
    run(*install, f"{wheel}[emulator]")
    assert "Serve the Prefactor HTTP API" in run(emulator, "--help").stdout
    run(*install, f"{wheel}[worker]")
    for url, driver, extra in (("redis://h", "Redis", "redis"), ("amqp://h", "RabbitMQ", "rabbitmq")):
        refused = run(worker, "run", "--transport", url, status=2, PREFACTOR_API_TOKEN="token")
        needed = f"the driver for {driver} is not installed: pip install 'prefactor-core[{extra}]'\n"
        assert refused.stderr.endswith(needed), refused.stderr
