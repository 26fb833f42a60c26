"""Published packages in folders of their own below `.peers`: each installed once, and kept."""

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Final

import pytest

from tests.support.brokers.sources import NODE, REQUIRE, required

PEERS: Final = Path(__file__).parents[2] / ".peers"
_SECONDS: Final = 480.0
"""How long an installation may take; more is no slow network."""


def python_with(name: str, *requirements: str) -> Path:
    """Return the Python of a virtual environment that has the requirements."""

    def install(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "install", *requirements)

    return _kept(name, "\n".join((sys.version, *requirements)), install) / "bin" / "python"


def source_of(name: str, version: str) -> Path:
    """Return the folder of a published package's sources, with the tests that it was released with."""
    requirement = f"{name}=={version}"

    def fetch(folder: Path) -> None:
        folder.mkdir()
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "download", "--no-deps", "--no-binary", name, "--dest", str(folder), requirement)
        (archive,) = folder.glob("*.tar.gz")
        shutil.unpack_archive(archive, folder, filter="data")

    return _kept(f"source-{requirement}", requirement, fetch) / f"{name.replace('-', '_')}-{version}"


def node_with(name: str, packages: Mapping[str, str]) -> Path:
    """Return the folder of Node modules that has the packages, by name and version.

    Where Node or npm is missing, the test is skipped, or fails when they are required.
    """
    npm = _of_node("npm")
    manifest = json.dumps({"private": True, "dependencies": dict(packages)}, indent=2)

    def install(folder: Path) -> None:
        folder.mkdir()
        (folder / "package.json").write_text(manifest)
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
        _run(npm, "install", *options, "--prefix", str(folder))

    return _kept(name, manifest, install) / "node_modules"


def node_program() -> str:
    """Return the path of Node, if it is there; otherwise skip the test, or fail it."""
    return _of_node("node")


def _kept(name: str, wanted: str, install: Callable[[Path], None]) -> Path:
    """Return a folder with what is wanted in it; one process at a time looks, and installs it."""
    folder = PEERS / name
    stamp = folder / ".installed"
    with _alone(name):
        if not (stamp.exists() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            install(folder)
            stamp.write_text(wanted)
    return folder


def _of_node(program: str) -> str:
    if path := shutil.which(program):
        return path
    lacking = (
        f"no {program} to run TypeScript clients with: install nodejs and npm (apt-get install nodejs npm)"
    )
    if NODE in required(environ):
        pytest.fail(f"{lacking}; {REQUIRE} asks for it", pytrace=False)
    pytest.skip(lacking)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep the other processes of a parallel run out, until the end of the block or of this process."""
    PEERS.mkdir(exist_ok=True)
    with (PEERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    """Run a program that installs; fail the test with its last words when it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"not done within {_SECONDS:.0f} s: {' '.join(command)}", pytrace=False)
    if done.returncode:
        pytest.fail(
            f"published packages could not be installed, which takes the network once: {' '.join(command)}\n"
            f"{(done.stdout + done.stderr)[-2000:]}",
            pytrace=False,
        )
