"""What all tests share: brokers, tiers, options."""

import asyncio
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.brokers.shared import SHARED, SharedBrokers
from tests.support.seeds import Seeds
from tests.support.tiers import MARKERS, group_of, order_of, tiers_of

pytest_plugins = ["tests.support.brokers.fixtures"]  # brokers are for every folder of tests

hypothesis.settings.register_profile("ci", deadline=None)
hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the simulations."""
    parser.addoption("--seeds", type=int, help="how many seeds each simulation runs with")
    parser.addoption("--seed", type=int, help="the one seed that simulations run with")


def pytest_configure(config: pytest.Config) -> None:
    """Register the tiers, and have the controller of the run own the brokers that its tests share."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if not config.getoption("--hypothesis-profile", None):
        hypothesis.settings.load_profile("dev")
    if not hasattr(config, "workerinput"):
        config.stash[SHARED] = SharedBrokers()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a process of a parallel run where it finds the brokers."""
    brokers = vars(node)["config"].stash[SHARED]
    if not brokers.address:
        brokers.serve()
    vars(node)["workerinput"]["shared_brokers"] = brokers.address


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the brokers."""
    if (brokers := config.stash.get(SHARED, None)) is not None:
        brokers.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its tiers; in a parallel run, group and order them."""
    for item in items:
        for tier in sorted(tiers_of(item)):
            item.add_marker(tier)
        if hasattr(config, "workerinput") and (group := group_of(item)):
            item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):
        items.sort(key=order_of)


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Seeds:
    """The seeds of a simulation."""
    config = request.config
    return Seeds(request.node.nodeid, config.getoption("--seeds"), config.getoption("--seed"))


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Have threads interrupt each other as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """Have SIGINT end the processes of tests even where the suite runs in the background of a shell.

    That starts it with the signal ignored, which children inherit; they do not inherit a handler.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def event_loop_between_tests() -> Iterator[None]:
    """Give the event loop policy a loop for the time between tests, and close it.

    Without one pytest-asyncio makes it, and a later ``asyncio.run`` in a test drops it unclosed.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
