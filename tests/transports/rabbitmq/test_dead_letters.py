"""Dead letters: stored before the message goes, and kept until they are removed."""

from collections.abc import AsyncGenerator

import pytest

from prefactor_core.broker.driver import DeadLetterMessage
from prefactor_core.exceptions import BrokerError
from tests.transports.rabbitmq.rig import Rig, cut, own, read


async def _dead_letter(rig: Rig, *texts: str, partition: int = 0) -> None:
    await rig.publish(texts, partition)
    end = rig.consuming()
    owned = await own(end, partition)
    messages = await read(owned, len(texts))
    assert not await owned.dead_letter([(message, b"record of " + message.data) for message in messages])
    await end.disconnect()


async def _records(rig: Rig) -> list[tuple[bytes, int]]:
    async with rig.dead_letters() as end:
        return [(letter.data, letter.partition) async for letter in end.read()]


async def test_a_dead_letter_replaces_its_message(rig: Rig) -> None:
    await _dead_letter(rig, "a", "b")
    await _dead_letter(rig, "c", partition=1)
    expected = [(b"record of a", 0), (b"record of b", 0), (b"record of c", 1)]
    assert await _records(rig) == expected
    assert await _records(rig) == expected
    assert await rig.depth("0") == await rig.depth("1") == 0


async def test_what_is_not_removed_stays_in_order(rig: Rig) -> None:
    await _dead_letter(rig, *"abcdef")
    async with rig.dead_letters() as end:
        letters = [letter async for letter in end.read()]
        await end.remove([letters[1], letters[4]])
        await end.remove([letters[1]])
    assert [data[-1:] for data, _ in await _records(rig)] == [b"a", b"c", b"d", b"f"]


async def test_many_letters_stay_in_order_however_they_are_read(rig: Rig) -> None:
    """Of more than 32 the broker forgets the order when it takes them back."""
    texts = [f"{number:03}" for number in range(120)]
    await _dead_letter(rig, *texts)
    for count in (120, 120, 50, 3, 120):
        async with rig.dead_letters() as end:
            seen: list[bytes] = []
            async for letter in end.read():
                seen.append(letter.data)
                if len(seen) == count:
                    break
        assert seen == [f"record of {text}".encode() for text in texts[:count]]
    await _dead_letter(rig, "later")
    assert [data for data, _ in await _records(rig)][-2:] == [b"record of 119", b"record of later"]


async def test_reading_may_stop_and_begin_again(rig: Rig) -> None:
    await _dead_letter(rig, *"abc")
    async with rig.dead_letters() as end:
        reading = end.read()
        assert isinstance(reading, AsyncGenerator)
        first: DeadLetterMessage = await anext(reading)
        await reading.aclose()
        letters = [letter async for letter in end.read()]
        assert [letter.data for letter in letters] == [b"record of a", b"record of b", b"record of c"]
        await end.remove([first])
    assert len(await _records(rig)) == 2


async def test_none_yet(rig: Rig) -> None:
    assert await _records(rig) == []


async def test_removing_after_a_lost_connection_says_so(rig: Rig) -> None:
    await _dead_letter(rig, "a")
    async with rig.dead_letters() as end:
        letters = [letter async for letter in end.read()]
        cut(end)
        with pytest.raises(BrokerError):
            await end.remove(letters)
        again = [letter async for letter in end.read()]
        await end.remove(again)
    assert await _records(rig) == []


async def test_a_lost_partition_stores_no_record(rig: Rig) -> None:
    await rig.publish(["a"])
    end = rig.consuming()
    owned = await own(end)
    messages = await read(owned, 1)
    cut(end)
    await owned.release()
    assert await owned.dead_letter([(messages[0], b"record")]) == messages
    assert await _records(rig) == []


async def test_a_deleted_store_is_made_again_and_nothing_is_lost(rig: Rig) -> None:
    await rig.publish(["a", "b"])
    owned = await own(rig.consuming())
    first, second = await read(owned, 2)
    assert not await owned.dead_letter([(first, b"lost with the queue")])
    await rig.delete("dead")
    letters = [(second, b"record")]
    with pytest.raises(BrokerError, match="routed"):
        await owned.dead_letter(letters)
    assert owned.held
    assert not await owned.dead_letter(letters)
    assert await _records(rig) == [(b"record", 0)]
