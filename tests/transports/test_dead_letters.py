"""Dead letters are kept in order until they are removed; what became of replayed ones is answered."""

from collections.abc import AsyncGenerator

import pytest

from prefactor_core.broker.driver import DeadLetterEnd
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_redis.broker import RedisBroker
from tests.transports.rig import Rig, own, read, until

AnyRig = Rig[RedisBroker] | Rig[RabbitBroker]
_MANY = 120
"""More than one page, and more than RabbitMQ takes back in order."""


async def dead_letter_all(rig: AnyRig, *names: str, partition: int = 0) -> None:
    await rig.publish(names, partition)
    end = rig.consuming()
    owner = await own(end, partition)
    messages = await read(owner, len(names))
    assert await owner.dead_letter([(message, b"record of " + message.data) for message in messages]) == []
    await end.disconnect()


async def test_letters_stay_in_order_until_they_are_removed(rig: AnyRig) -> None:
    consumer = rig.consuming()
    await consumer.partitions()
    names = [f"{number:03}" for number in range(_MANY)]
    records = [f"record of {name}".encode() for name in names]
    await dead_letter_all(rig, *names)
    await dead_letter_all(rig, "elsewhere", partition=1)
    for count in (_MANY + 1, 50, 3):  # however they are read
        async with rig.dead_letters() as end:
            reading = end.read()
            assert isinstance(reading, AsyncGenerator)
            some = [await anext(reading) for _ in range(count)]
            await reading.aclose()
            all_dead = [dead async for dead in end.read()]  # reading may begin again
        assert [dead.data for dead in some] == [*records, b"record of elsewhere"][:count]
        assert [dead.partition for dead in all_dead] == [0] * _MANY + [1]
        assert [dead.data for dead in all_dead] == [*records, b"record of elsewhere"]
    async with rig.dead_letters() as end:
        all_dead = [dead async for dead in end.read()]
        await end.remove([all_dead[1], all_dead[4]])
        await end.remove([all_dead[1]])
        await end.remove(all_dead[100:_MANY])
    await dead_letter_all(rig, "later", partition=1)
    kept = [record for place, record in enumerate(records[:100]) if place not in {1, 4}]
    async with rig.dead_letters() as end:
        left = [dead async for dead in end.read()]
        assert [dead.data for dead in left] == [*kept, b"record of elsewhere", b"record of later"]
        await end.remove(left)
        assert await end.count() == 0

    async def drained() -> bool:
        return await consumer.backlog() == 0

    await until(drained, "what was dead-lettered to be gone")
    assert await rig.all_dead() == []


async def take(end: DeadLetterEnd, count: int) -> list[bytes]:
    taken: list[bytes] = []

    async def all_came() -> bool:
        taken.extend(await end.answers())
        return len(taken) >= count

    await until(all_came, f"{count} answers")
    return taken


async def test_answers_reach_each_address_once_and_in_order(rig: AnyRig) -> None:
    worker, end, other = rig.consuming(), rig.dead_letters(), rig.dead_letters()
    address, second = await end.open_answers(), await other.open_answers()
    assert address is not None
    assert second is not None
    assert await end.open_answers() == address
    await worker.answer(second, [b"2"])
    sent = [b'{"number": %d}' % number for number in range(2_000)]
    for start in range(0, len(sent), 500):
        await worker.answer(address, sent[start : start + 500])
    await worker.answer(address, [])
    assert await take(end, len(sent)) == sent
    assert await take(other, 1) == [b"2"]
    assert await end.answers() == []
    assert await rig.all_dead() == []


async def test_answers_to_nobody_are_dropped(rig: AnyRig, caplog: pytest.LogCaptureFixture) -> None:
    worker, end, gone = rig.consuming(), rig.dead_letters(), rig.dead_letters()
    address, old = await end.open_answers(), await gone.open_answers()
    assert address is not None
    assert old is not None
    await worker.partitions()
    caplog.clear()  # the server may have settings that are warned of
    before = await rig.left()
    await gone.disconnect()
    without = {name for name in before if old not in name}
    wrong = ["", "0", "0" * 31, "0" * 33, "G" * 32, "../" + "0" * 29, "0" * 32 + "\n", "é" * 32, "é", "dead"]
    wrong += [f"{rig.prefix}.0", f"{rig.prefix}.answers.{address}", "}:0:lease", f"{address}\n", "0" * 32]
    for nobody in (*wrong, address.upper() if address.upper() != address else "x", old):
        await worker.answer(nobody, [b"wrong", b"too"])
    assert await rig.left() == without
    await worker.answer(address, [b"right"])
    assert await take(end, 1) == [b"right"]
    assert await worker.backlog() == 0
    assert await rig.all_dead() == []
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]
    assert await gone.open_answers() not in {None, old}
    assert await gone.answers() == []
