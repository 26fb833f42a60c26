"""The suites that published packages were released with, on this SDK: docs/migration.md says what passes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers.looking import PROGRAMS, report_of
from tests.support.installing import python_with, source_of

ROOT: Final = Path(__file__).parents[2]
RECORD: Final = ROOT / "docs" / "migration.md"
VERSIONS: Final = {"prefactor-core": "0.5.3", "prefactor-langchain": "0.3.0", "prefactor-livekit": "0.1.5"}
LEFT_OUT: Final = "tests/test_termination_demo.py"
CLOCKS: Final = {"prefactor-core": "virtual", "prefactor-langchain": "slow", "prefactor-livekit": "slow"}


@pytest.fixture(scope="session")
def python() -> Path:
    """Return a Python that has this SDK, and what the published integrations and their suites need."""
    return python_with(
        "suites",
        "--editable",
        str(ROOT),
        "prefactor-http==0.4.3",
        *(f"{name}=={version}" for name, version in VERSIONS.items() if name != "prefactor-core"),
        "langchain>=1.3,<2",
        "pytest>=9,<9.2",
        "pytest-asyncio>=1.3,<2",
    )


def rows() -> Iterator[list[str]]:
    """Yield the rows of the document's tables."""
    for line in RECORD.read_text().splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("suite", VERSIONS)
def test_what_passes_of_a_published_suite_is_on_record(suite: str, python: Path, tmp_path: Path) -> None:
    source = source_of(suite, VERSIONS[suite])
    program = PROGRAMS / "suite.py"
    seen = report_of(
        python, "-I", program, source, CLOCKS[suite], f"--ignore={source / LEFT_OUT}", cwd=tmp_path
    )
    assert seen["sdk"] == str(ROOT / "prefactor_core" / "__init__.py")
    # Of a test with parameters the document has the name; the count tells whether all of them are meant.
    failed = {(Path(file).name, test) for file, test in map(name_of, seen["failed"])}
    assert failed == {
        (file.strip("`"), test.strip("` "))
        for name, file, tests, reason in (row for row in rows() if len(row) == 4)
        if name == suite and reason
        for test in tests.split(",")
    }
    counts = [str(len(seen["failed"]) + len(seen["passed"])), str(len(seen["passed"]))]
    assert [row[1:] for row in rows() if row[0] == f"{suite} {VERSIONS[suite]}"] == [counts]


def name_of(test: str) -> tuple[str, str]:
    """Return the file and the function of a test."""
    path, *_, function = test.split("::")
    return path, function.partition("[")[0]
