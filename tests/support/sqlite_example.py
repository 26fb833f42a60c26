"""The example transport as it would be with a mistake in it, held to tests of the contract."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "transport"
_PACKAGE: Final = "prefactor_sqlite"
_OUTCOME: Final = re.compile(r"^(PASSED|FAILED|ERROR) \S+::(\w+)(?: - (.*))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """One passage of the example's source, and what stands there instead.

    Attributes:
        module: The file, without its suffix.
        old: The passage; it occurs once.
        new: What replaces it.
    """

    module: str
    old: str
    new: str


def install(home: Path, *changes: Change) -> None:
    """Put the example into a folder, changed, so that its entry point is found on ``PYTHONPATH``."""
    shutil.copytree(_EXAMPLE / _PACKAGE, home / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        source = home / _PACKAGE / f"{change.module}.py"
        text = source.read_text()
        assert text.count(change.old) == 1, f"{source.name} has changed: not once in it: {change.old!r}"
        source.write_text(text.replace(change.old, change.new))
    about = home / "prefactor_transport_sqlite-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: prefactor-transport-sqlite\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[prefactor.transports]\nsqlite = {_PACKAGE}.plugin\n")


def example_tests() -> str:
    """Return the example's own tests: the contract, held against it."""
    return (_EXAMPLE / "tests" / "test_contract.py").read_text()


def outcomes(home: Path, tests: str, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Run tests in a process of their own, where ``install`` has put the example.

    Args:
        home: That folder.
        tests: The source of a module of tests.
        names: The tests to run; none means all.

    Returns:
        By name what came of each, ``PASSED``, ``FAILED`` or ``ERROR``, and the first words of why.
    """
    module = home / "test_held_to_the_contract.py"
    module.write_text(tests)
    (home / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    chosen = ["-k", " or ".join(names)] if names else []
    options = ["-q", "-rA", "-p", "no:cacheprovider", f"--basetemp={home / 'files'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *chosen, str(module)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(home), "COLUMNS": "1000"},
    )
    found = {name: (word, why) for word, name, why in _OUTCOME.findall(done.stdout)}
    assert found, done.stdout + done.stderr
    return found
