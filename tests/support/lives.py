"""Whole instances as operations: good ones, and such as the API rejects for one reason or another."""

from typing import Final

from prefactor_core import Operation
from prefactor_core.identifiers import PfidFactory
from tests.support import operations
from tests.support.operations import create, finish, finish_span, start

__all__ = ["PFIDS", "finish", "register", "rejected", "span", "spans", "start", "whole"]

PFIDS: Final = PfidFactory()


def register(instance: str, name: object = "bench") -> Operation:
    """Return a registration; with a name that is no text the API refuses it with 422."""
    return operations.register(instance, name, ["step"])


def span(instance: str) -> list[Operation]:
    """Return the two operations of a new span."""
    one = PFIDS.new()
    return [create(instance, one, payload={"text": "what was said " * 20}), finish_span(instance, one)]


def spans(instance: str, count: int) -> list[Operation]:
    return [one for _ in range((count + 1) // 2) for one in span(instance)][:count]


def whole(count: int) -> list[Operation]:
    """Return all that an instance with nothing wrong puts."""
    one = PFIDS.new()
    return [register(one), start(one), *spans(one, count - 3), finish(one)]


def rejected(kind: str, count: int) -> list[Operation]:
    """Return all that an instance with something wrong puts.

    Args:
        kind: ``unknown``: its registration is missing; ``refused``: the API refuses it; ``half``: the first
            half of its operations is missing; ``finished``: its spans come after its end.
        count: How many operations.
    """
    one = PFIDS.new()
    if kind == "unknown":
        return [start(one), *spans(one, count - 2), finish(one)]
    if kind == "refused":
        return [register(one, name=5), start(one), *spans(one, count - 3), finish(one)]
    if kind == "half":
        return whole(2 * count)[count:]
    assert kind == "finished", kind
    return [register(one), start(one), finish(one), *spans(one, count - 3)]
