from collections.abc import Iterator

import pytest

from tests.emulator.driver import Api, Served
from tests.support.emulator import mistakes_of


@pytest.fixture(scope="session")
def emulator() -> Iterator[Served]:
    """One emulator for all tests that neither end it nor make it misbehave."""
    served = Served()
    yield served
    assert mistakes_of(served.end()) == [], "the emulator exits without a word"


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
