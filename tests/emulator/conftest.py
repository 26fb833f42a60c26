from collections.abc import Iterator

import pytest

from tests.emulator.driver import Api, EmulatorProcess, Service


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorProcess]:
    """One process for all tests that neither end it nor make it misbehave."""
    with EmulatorProcess() as process:
        yield process
        assert process.end() == (0, ""), "the emulator exits cleanly and without a word"


@pytest.fixture(scope="module")
def faulty() -> Iterator[EmulatorProcess]:
    """A process of a module's own, which it makes misbehave."""
    with EmulatorProcess() as process:
        yield process
        assert process.end() == (0, ""), "faults make no noise in the log"


@pytest.fixture
def api(emulator: EmulatorProcess) -> Iterator[Api]:
    with emulator.api() as client:
        yield client


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.database.close()
