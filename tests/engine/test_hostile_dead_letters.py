"""Looking after dead letters among which somebody else has put anything at all."""

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.dead_letters import DeadLetters, Selection, StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.driver import DeadLetterMessage
from prefactor_core.broker.envelope import Envelope, decode, encode
from tests.engine.virtual import each
from tests.support.fake_broker import FakeBroker
from tests.support.operations import create, dice, quality

GOOD = 20
HOSTILE = 400
TIMES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01", "9999-12-31T23:59:59"]


def good(number: int) -> bytes:
    """Return the record of a good operation; each instance's are put the last first."""
    envelope = Envelope(f"good-{number}", GOOD - number, quality(f"i{number % 3}", number))
    return encode_dead_letter(StoredDeadLetter.of(encode(envelope), 0, "why", 1, None))


def hostile(rng: random.Random, number: int) -> Iterator[bytes]:
    """Yield records with something else in them, and what is none."""
    values: list[Any] = [None, True, -1, 10**4_299, 1.5, "", "\x1b[2J\r\n", [], {}, {"a": 1}, *TIMES, "--all"]
    for place in range(number):
        envelope = from_json(encode(Envelope(f"bad-{place}", 1, create(f"j{place % 3}", "s"))))
        fields = from_json(encode_dead_letter(StoredDeadLetter.of(b"", 0, "why", 1, None)))
        target = rng.choice([fields, envelope, envelope, envelope["body"]])
        target[rng.choice([*target])] = rng.choice(values)
        fields.setdefault("envelope", "")
        if fields["envelope"] == "" and rng.random() < 0.9:
            fields["envelope"] = to_json(envelope).decode()
        yield rng.choice([to_json(fields)] * 9 + [b"", b"{}", b"\xff", b"[" * 300])


def filled(seed: int) -> FakeBroker:
    """Return a broker with good and hostile dead letters, in any order."""
    broker = FakeBroker(2)
    rng = dice(seed)
    records = [*map(good, range(GOOD)), *hostile(rng, HOSTILE)]
    rng.shuffle(records)
    broker.all_dead = [DeadLetterMessage(data, number % 2, number) for number, data in enumerate(records)]
    return broker


@each("seed", range(4))
async def test_good_ones_are_replayed_in_their_sequence_and_what_cannot_be_read_stays(seed: int) -> None:
    broker = filled(seed)
    all_dead = DeadLetters(broker)
    listed = [record async for record in all_dead.list()]
    readable = {record.id for record in listed if record.read() is not None}
    replay = await all_dead.replay(Selection())
    left = [record async for record in all_dead.list()]
    assert (replay.replayed, replay.unreadable) == (len(readable), len(listed) - len(readable))
    assert len(left) == replay.unreadable > HOSTILE // 20
    assert replay.gone == ()
    published = [decode(data) for partition in broker.arrived for data in partition]
    assert {envelope.id for envelope in published} == readable
    for name in ("i0", "i1", "i2"):
        sequence = [one.sequence for one in published if one.operation.instance_id == name]
        assert sequence == sorted(sequence)
        assert len(sequence) >= GOOD // 3
    named = Selection(ids={record.id for record in left})
    assert await all_dead.purge(named) == len(left)
    assert broker.all_dead == []


@each("at", TIMES)
async def test_an_operation_of_any_time_can_be_asked_for_its_age(at: str) -> None:
    broker = FakeBroker(1)
    fields = from_json(encode(Envelope("an-id", 1, quality("a")))) | {"at": at}
    broker.put(0, to_json(fields))
    consumer = Consumer(broker.consuming(), broker.name, dice(1))
    (delivery,) = await consumer.receive(1, 1 << 20)
    assert delivery.item.timestamp == datetime.fromisoformat(at)
    assert consumer.oldest(0) is not None
    await consumer.disconnect()
