"""Which tier a test belongs to, told from its folder, its fixtures and what its code can start.

``broker``: it talks to a real server. ``process``: it starts child processes. ``soak``: it kills, freezes or
fills servers, or waits for fleets. ``fixtures``: it tests what the tests themselves are built from. Nobody
marks a test by hand: what a test does decides.
"""

import functools
import inspect
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Final

import pytest

MARKERS: Final = {
    "broker": "needs a real Redis or RabbitMQ",
    "process": "starts child processes",
    "soak": "kills or freezes servers, or waits for a fleet",
    "fixtures": "tests what the tests are built from",
    "smoke": "shows in seconds that a real broker works, in the default tier too",
}

_FOLDERS: Final = {
    "tests/fleet": {"broker", "process", "soak"},
    "tests/fixtures": {"fixtures"},
    "tests/smoke": {"smoke"},
}
_SHARED: Final = {"redis_url", "amqp_url"}
_BREAKABLE: Final = {
    "make_rabbit_server",
    "make_redis_server",
    "rabbit_cluster",
    "rabbit_server",
    "redis_cluster",
    "redis_sentinel",
    "redis_server",
}
_ONE_AT_A_TIME: Final = {"rabbit_cluster", "redis_cluster", "redis_sentinel", "rabbit_server"}
"""Servers that take long to start: of each kind, one process of a parallel run has one."""
_SUPPORT: Final = "tests.support.brokers."
_STARTERS: Final = {"async_playwright", "create_subprocess_exec", "Popen", "subprocess"}
"""Names in code that starts child processes."""


def tiers_of(item: pytest.Item) -> set[str]:
    """Return the tiers of a test."""
    found: set[str] = set()
    for folder, tiers in _FOLDERS.items():
        if item.nodeid.startswith(f"{folder}/"):
            found |= tiers
    fixtures = set(getattr(item, "fixturenames", ()))
    reached = frozenset[str]().union(*(_reached(function) for function in _functions_of(item)))
    if fixtures & (_SHARED | _BREAKABLE) or "getfixturevalue" in reached:  # which is how brokers are chosen
        found.add("broker")
    if fixtures & _BREAKABLE:
        found.add("soak")
    if reached & _STARTERS:
        found.add("process")
    return found


def group_of(item: pytest.Item) -> str | None:
    """Return what a test shares with others that are to run in the same process; None if nothing."""
    named = set(getattr(item, "fixturenames", ())).union(*map(_reached, _functions_of(item)))
    if servers := named & _ONE_AT_A_TIME:
        return min(servers)
    scopes = {fixture.scope for fixture in _fixtures_of(item) if fixture.func.__module__.startswith("tests.")}
    return item.nodeid.partition("::")[0] if scopes & {"module", "class", "package"} else None


def order_of(item: pytest.Item) -> int:
    """Return a rank by which the longest tests of a parallel run come first."""
    return next((rank for rank, tier in enumerate(MARKERS) if item.get_closest_marker(tier)), len(MARKERS))


def _fixtures_of(item: pytest.Item) -> Iterator[pytest.FixtureDef[object]]:
    info = getattr(item, "_fixtureinfo", None)
    for fixtures in info.name2fixturedefs.values() if info is not None else ():
        yield fixtures[-1]


def _functions_of(item: pytest.Item) -> Iterator[object]:
    yield getattr(item, "function", None)
    for fixture in _fixtures_of(item):
        yield fixture.func


@functools.cache
def _reached(thing: object) -> frozenset[str]:
    """Return the names that the code of a function or class uses, and all of the tests' own that it uses."""
    seen: set[int] = set()
    reached: set[str] = set()
    left = [thing]
    while left:
        one = _unwrapped(left.pop())
        if id(one) in seen or not str(getattr(one, "__module__", "")).startswith("tests."):
            continue
        seen.add(id(one))
        if isinstance(one, type):
            if not one.__module__.startswith(_SUPPORT):
                left += vars(one).values()
        elif isinstance(one, FunctionType):
            names = set(_names(one.__code__))
            used = {name: one.__globals__[name] for name in names if name in one.__globals__}
            reached |= names
            left += _contents(used.values())
    return frozenset(reached)


def _contents(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        yield value
        if isinstance(value, dict):
            yield from value.values()


def _unwrapped(thing: object) -> object:
    if isinstance(thing, MethodType | staticmethod | classmethod):
        thing = thing.__func__
    elif isinstance(thing, property):
        thing = thing.fget
    return inspect.unwrap(thing) if callable(thing) else thing


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):
            yield constant  # a fixture that is asked for by name
