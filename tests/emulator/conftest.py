from collections.abc import Iterator

import pytest

from tests.emulator.driver import Api, Served


@pytest.fixture(scope="session")
def emulator() -> Iterator[Served]:
    """One emulator for all tests that neither end it nor make it misbehave."""
    served = Served()
    yield served
    said = [line for line in served.end() if "does not fit what its agent registered" not in line]
    assert said == [], "the emulator exits without a word"


@pytest.fixture(scope="module")
def faulty() -> Iterator[Served]:
    """An emulator of a module's own, which it makes misbehave."""
    served = Served()
    yield served
    assert served.end() == [], "faults make no noise in the log"


@pytest.fixture
def api(emulator: Served) -> Iterator[Api]:
    with emulator.api() as client:
        yield client
