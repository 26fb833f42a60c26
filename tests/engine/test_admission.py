"""The bounded buffer: whole chains of dependents, or nothing."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefactor_core.operations import Operation, OperationType
from prefactor_core.queue.admission import Admission
from tests.engine.virtual import each
from tests.support.operations import create, finish, finish_span, key_of, life, quality, register, start

_MANY = 1 << 40


class Buffer:
    """A buffer that holds what was admitted until it is told to let go."""

    def __init__(self, max_items: int = _MANY, max_bytes: int = _MANY) -> None:
        self.time = 0.0
        self.admission = Admission(max_items, max_bytes, lambda: self.time)
        self.held: list[Operation] = []
        self.accepted: list[Operation] = []
        self.refused: list[Operation] = []
        self.max_items = max_items
        self.stretched = False
        """Whether more was open at once than room is ever kept for: half of the count."""

    def put(self, *operations: Operation) -> list[bool]:
        answers = []
        for operation in operations:
            taken = self.admission.admit(
                operation, operation.size, len(self.held), sum(one.size for one in self.held)
            )
            if taken:
                self.held.append(operation)
            (self.accepted if taken else self.refused).append(operation)
            answers.append(taken)
            self.stretched |= self.admission._reserved > self.max_items // 2
        return answers

    def settle(self, count: int) -> None:
        del self.held[:count]

    def keys(self) -> set[str]:
        return {key_of(operation) for operation in self.accepted}


def test_what_fits_is_taken() -> None:
    buffer = Buffer(max_items=100)
    assert all(buffer.put(*life("a", 5)))
    assert buffer.admission.dropped == Counter()


def test_full_by_count_keeps_room_for_the_finishes() -> None:
    buffer = Buffer(max_items=20)
    buffer.put(register("a"), start("a"))
    spans = [f"a-{number}" for number in range(20)]
    taken = [span for span in spans if buffer.put(create("a", span)) == [True]]
    assert 5 <= len(taken) < 20
    assert all(buffer.put(*(finish_span("a", span) for span in taken)))
    assert buffer.put(finish("a")) == [True]
    assert len(buffer.held) <= 20


def test_full_by_bytes_keeps_room_for_the_finishes_of_a_few() -> None:
    buffer = Buffer(max_bytes=100_000)
    buffer.put(register("a"), start("a"))
    opened = [f"a-{number}" for number in range(20)]
    assert all(buffer.put(*(create("a", span) for span in opened)))
    filler = 0
    while buffer.put(create("a", f"a-f{filler}", payload={"x": "y" * 500}, finished=True)) == [True]:
        filler += 1
    assert filler > 100
    assert all(buffer.put(*(finish_span("a", span) for span in opened), finish("a")))
    assert sum(one.size for one in buffer.held) <= 100_000


def test_a_dropped_registration_takes_its_instance_and_nothing_else() -> None:
    buffer = Buffer(max_items=12)
    assert all(buffer.put(register("a"), start("a"), create("a", "a-1")))
    assert all(buffer.put(*(quality("a", number) for number in range(7))))
    assert buffer.put(register("b")) == [False]
    buffer.settle(8)
    assert buffer.put(
        start("b"), create("b", "b-1"), quality("b", 1), finish_span("b", "b-1"), finish("b")
    ) == ([False] * 5)
    assert all(buffer.put(finish_span("a", "a-1"), quality("a", 99), finish("a")))
    assert buffer.admission.dropped == {
        "register_agent_instance": 1,
        "start_agent_instance": 1,
        "create_span": 1,
        "record_quality": 1,
        "finish_span": 1,
        "finish_agent_instance": 1,
    }


def test_a_dropped_create_takes_its_finish_and_descendants_and_nothing_else() -> None:
    buffer = Buffer(max_items=10)
    assert all(buffer.put(register("a"), start("a"), create("a", "a-1"), create("a", "a-2")))
    assert all(buffer.put(*(quality("a", number) for number in range(3))))
    assert buffer.put(create("a", "a-3")) == [False]
    buffer.settle(6)
    assert buffer.put(
        create("a", "a-4", "a-3"),
        create("a", "a-5", "a-4"),
        create("a", "a-6", "a-1"),
        finish_span("a", "a-5"),
        finish_span("a", "a-4"),
        finish_span("a", "a-3"),
        finish_span("a", "a-6"),
        finish_span("a", "a-1"),
        finish("a"),
    ) == [False, False, True, False, False, False, True, True, True]


def test_spans_that_are_never_finished_do_not_fill_the_buffer() -> None:
    buffer = Buffer(max_items=20)
    for number in range(500):
        buffer.put(create("a", f"a-{number}"))
        buffer.settle(1)
    assert sum(buffer.put(*(quality("b", number) for number in range(20)))) >= 10


def test_what_is_remembered_of_spans_that_are_never_finished_is_bounded() -> None:
    buffer = Buffer(max_items=20)
    for number in range(500):
        buffer.put(*life(f"i{number}")[:3])
        buffer.settle(3)
    assert sum(len(closings) for closings in buffer.admission._open.values()) <= 40
    assert len(buffer.admission._dependents._instances) <= 500


def test_room_comes_back_when_an_instance_is_over() -> None:
    buffer = Buffer(max_items=20)
    for number in range(500):
        instance = f"i{number}"
        operations = life(instance, 2)
        operations.remove(next(one for one in operations if one.type is OperationType.FINISH_SPAN))
        assert all(buffer.put(*operations)), number
        buffer.settle(20)
    assert buffer.admission._reserved == 0
    assert buffer.admission._open == {}


def test_items_that_are_no_operations() -> None:
    admission = Admission(3, _MANY, lambda: 0.0)
    assert [admission.admit("x", 1, held, held) for held in range(5)] == [True, True, True, False, False]
    assert admission.dropped == {"item": 2}


def test_one_warning_in_half_a_minute_with_the_sum(caplog: pytest.LogCaptureFixture) -> None:
    buffer = Buffer(max_items=1)
    for _ in range(100):
        buffer.time += 1
        buffer.put(create("a", "a-1", payload={"secret": "hidden"}))
    assert len(caplog.records) == 4
    assert "91 operations dropped" in caplog.text
    assert "hidden" not in caplog.text


_MOVES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), min_size=10, max_size=120
)


def _play(buffer: Buffer, moves: list[tuple[int, int, int]], *, settle: bool) -> None:
    """Play agents that keep the rules: parents before children, a finish once, nothing after the last."""
    generation = Counter[int]()
    spans: dict[str, list[str]] = {}
    ever: dict[str, list[str]] = {}
    serial = 0
    for what, number, choice in moves:
        instance = f"i{number}.{generation[number]}"
        if instance not in spans:
            spans[instance], ever[instance] = [], []
            buffer.put(register(instance), start(instance))
        opened = spans[instance]
        if what <= 2:
            serial += 1
            span = f"{instance}-{serial}"
            parents = [None, *ever[instance]]
            buffer.put(create(instance, span, parents[choice % len(parents)], finished=what == 2))
            ever[instance].append(span)
            if what < 2:
                opened.append(span)
        elif what == 3 and opened:
            buffer.put(finish_span(instance, opened.pop(choice % len(opened))))
        elif what == 4:
            serial += 1
            buffer.put(quality(instance, serial))
        elif choice > 7:
            buffer.put(*(finish_span(instance, span) for span in opened), finish(instance))
            generation[number] += 1
            del spans[instance]
        elif settle:
            buffer.settle(choice)
    for instance, opened in spans.items():
        buffer.put(*(finish_span(instance, span) for span in opened), finish(instance))


def _open_ends(buffer: Buffer) -> list[str]:
    """What was accepted without what it needs, or without its finish."""
    keys = buffer.keys()
    problems = []
    registered = {
        one.instance_id for one in buffer.accepted if one.type is OperationType.REGISTER_AGENT_INSTANCE
    }
    for one in buffer.accepted:
        if one.instance_id not in registered:
            problems.append(f"{one.idempotency_key} without its instance")
        if one.type is OperationType.CREATE_SPAN:
            parent = one.payload.get("parent_span_id")
            if parent is not None and f"{parent}:create" not in keys:
                problems.append(f"{one.span_id} without its parent")
        if one.type is OperationType.FINISH_SPAN and f"{one.span_id}:create" not in keys:
            problems.append(f"{one.span_id} finished, not created")
    lost = set() if buffer.stretched else {key_of(one) for one in buffer.refused}
    for one in buffer.accepted:
        finish_key = f"{one.span_id}:finish" if one.span_id else f"{one.instance_id}:finish"
        if finish_key in lost:
            problems.append(f"{finish_key} was dropped, but {one.idempotency_key} was not")
    return problems


@settings(max_examples=300, deadline=None)
@given(moves=_MOVES, max_items=st.integers(6, 40), settle=st.booleans())
def test_whatever_is_accepted_is_closed_by_count(
    moves: list[tuple[int, int, int]], max_items: int, *, settle: bool
) -> None:
    buffer = Buffer(max_items=max_items)
    _play(buffer, moves, settle=settle)
    assert _open_ends(buffer) == []
    assert buffer.admission.dropped.total() == len(buffer.refused)
    assert dict(buffer.admission.dropped) == Counter(one.type.value for one in buffer.refused)


@settings(max_examples=200, deadline=None)
@given(moves=_MOVES, max_bytes=st.integers(20_000, 60_000))
def test_whatever_is_accepted_is_closed_by_bytes(moves: list[tuple[int, int, int]], max_bytes: int) -> None:
    buffer = Buffer(max_bytes=max_bytes)
    _play(buffer, moves, settle=False)
    assert _open_ends(buffer) == []


def test_the_checker_sees_half_an_instance() -> None:
    buffer = Buffer()
    buffer.accepted = [register("a"), create("a", "a-1"), finish_span("a", "a-2")]
    buffer.refused = [finish_span("a", "a-1")]
    assert len(_open_ends(buffer)) == 2


@each("spans", [3, 10])
def test_the_finish_of_a_span_after_its_instance_does_not_outlive_its_create(spans: int) -> None:
    """Tasks may finish a span after the instance; a create that was dropped still takes it along."""
    buffer = Buffer(max_items=8)
    buffer.put(register("a"), start("a"))
    opened = [f"a-{number}" for number in range(spans)]
    buffer.put(*(create("a", span) for span in opened))
    buffer.put(finish("a"))
    buffer.settle(8)
    buffer.put(*(finish_span("a", span) for span in opened))
    keys = buffer.keys()
    assert {span for span in opened if f"{span}:finish" in keys} <= {
        span for span in opened if f"{span}:create" in keys
    }
