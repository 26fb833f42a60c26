"""What a client that nobody here wrote runs against: an emulator, on which it has an account of its own."""

import itertools
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from prefactor_http import HttpClientConfig, PrefactorHttpClient

from tests.peers.calling import Keys
from tests.support.emulator import EmulatorThread, mistakes_of


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorThread]:
    """One emulator for all tests that leave it as it is."""
    served = EmulatorThread()
    yield served
    assert mistakes_of(served.end()) == []


@pytest.fixture
async def client(emulator: EmulatorThread) -> AsyncIterator[PrefactorHttpClient]:
    """Return the published client; it has a token of its own, and repeats nothing."""
    async with PrefactorHttpClient(HttpClientConfig(emulator.url, uuid4().hex, max_retries=0)) as client:
        yield client


@pytest.fixture(params=["without keys", "with keys"])
def key(request: pytest.FixtureRequest) -> Keys:
    """Return what gives each call its idempotency key: none, or a new one, the shortest first."""
    numbers = itertools.count(1)
    return lambda: f"{next(numbers)}" if request.param == "with keys" else None
