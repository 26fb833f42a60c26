"""What is acknowledged, and how."""

from aiormq.abc import DeliveredMessage
from pamqp import commands
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from prefactor_core.transport import Message
from prefactor_rabbitmq.inbox import Inbox, Memory, Receipt, fingerprint


def _delivery(tag: int, body: bytes = b"x", count: int | None = None) -> DeliveredMessage:
    deliver = commands.Basic.Deliver("c", tag, redelivered=False, exchange="", routing_key="")
    headers: FieldTable | None = None if count is None else {"x-delivery-count": count}
    properties = commands.Basic.Properties(message_id=f"m{tag}", headers=headers)
    return DeliveredMessage(deliver, ContentHeader(properties=properties), body, None)  # type: ignore[arg-type]


def _inbox(*tags: int, size: int = 1, at_most: int = 1_000) -> Inbox:
    inbox = Inbox(Memory())
    for tag in tags:
        inbox.add(_delivery(tag, bytes(size)), 0.0, at_most)
    return inbox


def _add(inbox: Inbox, *tags: int, count: int | None = None) -> None:
    for tag in tags:
        inbox.add(_delivery(tag, count=count), 0.0, 1_000)


def _receipt(message: Message) -> Receipt:
    assert isinstance(message.receipt, Receipt)
    return message.receipt


def test_only_what_is_settled_is_covered() -> None:
    steps: list[list[int]]
    expected: list[list[tuple[int, bool]]]
    for steps, expected in (
        ([[1, 2, 3]], [[(3, True)]]),
        ([[1, 2, 3, 4, 5]], [[(5, True)]]),
        ([[2, 3]], [[(2, False), (3, False)]]),
        ([[2], [1], [5, 4]], [[(2, False)], [(1, True)], [(4, False), (5, False)]]),
        ([[2], [1, 3]], [[(2, False)], [(3, True)]]),
        ([[1, 3]], [[(1, True), (3, False)]]),
        ([[1], [1]], [[(1, True)], []]),
    ):
        inbox = _inbox(*range(1, 6))
        receipts = {_receipt(message).tag: _receipt(message) for message in inbox.take(5, 100)}
        assert [inbox.settle(receipts[tag] for tag in step) for step in steps] == expected, steps


def test_bytes_and_ages_are_those_of_what_is_unsettled() -> None:
    inbox = _inbox()
    inbox.add(_delivery(1, b"four"), 10.0, 100)
    inbox.add(_delivery(2, b"seven.."), 11.0, 100)
    first, second = map(_receipt, inbox.take(2, 100))
    for settled, expected in (([], (11, 10.0, 2)), ([first], (7, 11.0, 1)), ([second], (0, None, 0))):
        inbox.settle(settled)
        assert (inbox.bytes, inbox.oldest, len(inbox)) == expected


def test_one_message_is_always_whole() -> None:
    inbox = _inbox(*range(1, 5), size=100)
    for count, size, taken in ((10, 1, 1), (10, 250, 2), (0, 250, 0), (10, 250, 1)):
        assert len(inbox.take(count, size)) == taken
    inbox = _inbox(1, size=1_000, at_most=10)
    assert len(inbox.take(1, 1)) == 1
    assert not inbox.exhausted


def test_redelivered_by_count() -> None:
    inbox = _inbox(1)
    _add(inbox, 2, count=0)
    _add(inbox, 3, count=1)
    assert [message.redelivered for message in inbox.take(3, 100)] == [False, False, True]


def test_returns_that_are_known_to_be_harmless_isolate_nobody() -> None:
    """As this process has survived them, or others tell of them: no less than is known already."""
    memory = Memory()
    assert (memory.may_be_poison("a", 2), memory.may_be_poison("a", 3)) == (False, True)
    memory.survive("a")
    assert not memory.may_be_poison("a", 3)
    memory.learn("a", 2)
    assert (memory.may_be_poison("a", 4), memory.may_be_poison("a", 5)) == (False, True)
    memory.survive("a")
    memory.learn("a", 1)
    assert (memory.survived("a"), memory.survived("b")) == (3, 0)
    memory.forget("a")
    assert memory.may_be_poison("a", 3)


def test_what_may_be_poison_is_cleared_by_what_more_is_known() -> None:
    memory = Memory()
    inbox = Inbox(memory)
    _add(inbox, 1, 2, count=3)
    memory.learn(fingerprint(_delivery(1)), 1)
    inbox.reconsider()
    assert inbox.possible_poison == 1
    memory.learn(fingerprint(_delivery(2)), 3)
    inbox.reconsider()
    assert (inbox.possible_poison, len(inbox.take(2, 100))) == (0, 2)


def test_the_last_that_an_owner_had_before_is_known() -> None:
    inbox = _inbox()
    _add(inbox, 1, 2, count=1)
    _add(inbox, 3)
    one, two, fresh = map(_receipt, inbox.take(3, 100))
    for receipts, ends in (([one], False), ([one, one], False), ([fresh], False), ([one, two], True)):
        assert inbox.ends_returned(receipts) is ends
    inbox.settle([one])
    assert inbox.ends_returned([two, fresh])
    inbox.settle([two])
    assert not inbox.ends_returned([fresh])
    inbox.shed(_delivery(4, count=1))
    assert not inbox.ends_returned([fresh])


def test_with_what_may_be_poison_here_one_at_a_time_is_handed_out() -> None:
    inbox = _inbox(1, 2)
    (first,) = inbox.take(1, 100)
    _add(inbox, 3, count=3)
    assert (inbox.possible_poison, inbox.available) == (1, False)
    assert inbox.take(10, 100) == []
    inbox.settle([_receipt(first)])
    (second,) = inbox.take(10, 100)
    assert not inbox.available
    inbox.settle([_receipt(second)])
    (third,) = inbox.take(10, 100)
    _add(inbox, 4, 5)
    assert _receipt(third).may_be_poison
    assert not inbox.available
    inbox.settle([_receipt(third)])
    assert len(inbox.take(10, 100)) == 2


def test_what_is_too_much_to_hold_is_shed_from_the_end() -> None:
    inbox = _inbox(*range(1, 6), size=100, at_most=250)
    assert (len(inbox), inbox.bytes, inbox.exhausted) == (5, 200, False)
    messages = inbox.take(10, 1_000)
    assert len(messages) == 2
    assert len(inbox.returns) == 5
    assert inbox.settle([_receipt(message) for message in messages]) == [(2, True)]
    inbox.add(_delivery(6), 0.0, 250)  # behind those that were shed
    assert (len(inbox), inbox.exhausted, inbox.available) == (4, True, False)
