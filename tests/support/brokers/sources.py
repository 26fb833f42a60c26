"""Where a test's broker comes from, and what happens when it comes from nowhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

REQUIRE = "PREFACTOR_TEST_REQUIRE"


@dataclass(frozen=True)
class Broker:
    """A kind of broker.

    Args:
        name: What ``PREFACTOR_TEST_REQUIRE`` calls it.
        variable: The environment variable with the address of one that runs already.
        package: What to install for one of a test's own.
    """

    name: str
    variable: str
    package: str


REDIS = Broker("redis", "PREFACTOR_TEST_REDIS_URL", "redis-server")
RABBITMQ = Broker("rabbitmq", "PREFACTOR_TEST_AMQP_URL", "rabbitmq-server")
NODE = "node"
CHROMIUM = "chromium"
_KNOWN = (REDIS.name, RABBITMQ.name, NODE, CHROMIUM)


class Source(Enum):
    ENVIRONMENT = auto()
    DOCKER = auto()
    PROGRAMS = auto()
    SKIP = auto()
    FAIL = auto()


@dataclass(frozen=True)
class Decision:
    source: Source
    text: str = ""  # the address from the environment, or the reason to skip or fail


def decide_any(
    broker: Broker, environ: Mapping[str, str], docker: Callable[[], bool], programs: Callable[[], bool]
) -> Decision:
    """Decide for a test that leaves the broker as it is: any will do.

    Args:
        broker: The kind.
        environ: The environment.
        docker: Tells whether a Docker engine answers; asked only if it matters.
        programs: Tells whether the broker's programs are installed; asked only if it matters.
    """
    if url := environ.get(broker.variable):
        return Decision(Source.ENVIRONMENT, url)
    if docker():
        return Decision(Source.DOCKER)
    if programs():
        return Decision(Source.PROGRAMS)
    return _without(
        broker,
        environ,
        f"no {broker.name} to test with: install {broker.package} (apt-get install {broker.package}), "
        f"start Docker, or put the address of one into {broker.variable}",
    )


def decide_own(broker: Broker, environ: Mapping[str, str], programs: Callable[[], bool]) -> Decision:
    """Decide for a test that kills the broker: it must be the test's own."""
    if programs():
        return Decision(Source.PROGRAMS)
    return _without(
        broker,
        environ,
        f"this test kills a {broker.name} of its own: install {broker.package} "
        f"(apt-get install {broker.package})",
    )


def required(environ: Mapping[str, str]) -> set[str]:
    """Return the names of what tests must not be skipped for want of.

    Raises:
        ValueError: One of them is the name of nothing.
    """
    names = {name.strip() for name in environ.get(REQUIRE, "").split(",")} - {""}
    if unknown := names.difference(_KNOWN):
        raise ValueError(f"{REQUIRE} knows {', '.join(_KNOWN)}, not {', '.join(sorted(unknown))}")
    return names


def _without(broker: Broker, environ: Mapping[str, str], text: str) -> Decision:
    if broker.name in required(environ):
        return Decision(Source.FAIL, f"{text}; {REQUIRE} asks for it")
    return Decision(Source.SKIP, text)
