"""What is lost along with what."""

import pytest

from prefactor_core import Operation, OperationType
from prefactor_core.execution.dependents import Dependents
from tests.support.operations import create, finish_span
from tests.unit.samples import AT, INSTANCE, operation

REGISTER = OperationType.REGISTER_AGENT_INSTANCE
START = OperationType.START_AGENT_INSTANCE
FINISH = OperationType.FINISH_AGENT_INSTANCE
QUALITY = OperationType.RECORD_QUALITY


def follow(dependents: Dependents, *items: object) -> list[str | None]:
    """Return each item's reason, losing what has one, as the users of a dependents do."""
    reasons = []
    for item in items:
        reasons.append(dependents.reason(item))
        if reasons[-1] is not None:
            dependents.lose(item, reasons[-1])
    return reasons


@pytest.mark.parametrize("opener", [REGISTER, START])
def test_a_lost_opener_loses_everything_of_its_instance_and_nothing_of_another(opener: OperationType) -> None:
    for kind in OperationType:
        dependents = Dependents()
        dependents.lose(operation(opener), "full")
        assert dependents.reason(operation(kind)) == "full", kind
        assert dependents.reason(operation(kind, instance_id="other")) is None, kind


def test_a_lost_create_loses_its_finish_and_its_descendants_only() -> None:
    dependents = Dependents()
    assert not dependents
    dependents.lose(create(INSTANCE, "a"), "full")
    assert dependents
    items = [create(INSTANCE, "b", "a"), create(INSTANCE, "c", "b")]
    items += [finish_span(INSTANCE, span) for span in ("c", "b", "a")]
    assert follow(dependents, *items) == ["full"] * 5
    apart = [create(INSTANCE, "x"), create(INSTANCE, "y", "x"), finish_span(INSTANCE, "x")]
    apart += [operation(kind) for kind in (QUALITY, START, FINISH)]
    assert follow(dependents, *apart) == [None] * 6
    assert follow(dependents, create("other", "b", "a"), finish_span("other", "a")) == [None, None]


@pytest.mark.parametrize("kind", [QUALITY, OperationType.FINISH_SPAN, FINISH])
def test_nothing_depends_on_the_others(kind: OperationType) -> None:
    dependents = Dependents()
    dependents.lose(operation(kind), "full")
    assert follow(dependents, *(operation(other) for other in OperationType)) == [None] * len(OperationType)


def test_items_without_an_instance_have_no_dependents() -> None:
    dependents = Dependents()
    for item in ("text", None, Operation(REGISTER, {}, AT)):
        dependents.lose(item, "full")
        assert dependents.reason(item) is None
    assert not dependents


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    dependents = Dependents()
    names = [f"instance {number}" for number in range(10_001)]
    for name in names:
        dependents.lose(operation(START, instance_id=name), "full")
    assert [name for name in names if dependents.reason(create(name, "a"))] == names[1:]
    dependents = Dependents()
    for number in range(100_001):
        span = {"instance_id": "i", "span_id": str(number)}
        dependents.lose(Operation(OperationType.CREATE_SPAN, span, AT), "x")
    assert [dependents.reason(finish_span("i", span)) for span in ("0", "1", "100000")] == [None, "x", "x"]
