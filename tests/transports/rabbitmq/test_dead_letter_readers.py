"""Several readers of the dead letters: one at a time, and each of them sees everything, in order."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from prefactor_core.broker.driver import DeadLetterEnd, DeadLetterMessage
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq import dead_reader
from prefactor_rabbitmq.confirming import Outgoing
from tests.transports.rabbitmq.rig import Rig, cut, outlet, until

_READER = Path(__file__).with_name("dead_letter_reader.py")
_COUNT = 300
_ALL = [b"%03d" % number for number in range(_COUNT)]
_A_WHILE = 0.5
"""Seconds in which a reader that does not wait has read something."""


@pytest.fixture(autouse=True)
async def _letters(rig: Rig) -> None:
    """Store letters, as many as the broker does not take back in order."""
    end = rig.publishing()
    await end.partitions()
    await outlet(end).publish(
        [
            Outgoing("", f"{rig.prefix}.dead", data, {"partition": 0, "at": place})
            for place, data in enumerate(_ALL)
        ]
    )


async def _some(reading: AsyncGenerator[DeadLetterMessage], count: int) -> list[bytes]:
    return [(await anext(reading)).data for _ in range(count)]


def _reading(end: DeadLetterEnd) -> AsyncGenerator[DeadLetterMessage]:
    reading = end.read()
    assert isinstance(reading, AsyncGenerator)
    return reading


async def _list(rig: Rig) -> list[bytes]:
    async with rig.dead_letters() as end:
        return [letter.data async for letter in end.read()]


async def _replay(rig: Rig) -> int:
    """Publish everything once more, one by one, as a replay does."""
    publishing = rig.publishing()
    async with rig.dead_letters() as end:
        letters = [letter async for letter in end.read()]
        for letter in letters:
            await publishing.publish(0, [letter.data])
            await end.remove([letter])
    return len(letters)


async def _purge(rig: Rig) -> int:
    async with rig.dead_letters() as end:
        letters = [letter async for letter in end.read()]
        await end.remove(letters)
    return len(letters)


@pytest.mark.parametrize("limited", [True, False])
async def test_a_reader_waits_until_the_one_before_is_disconnected(rig: Rig, *, limited: bool) -> None:
    before = rig.dead_letters()
    reading = _reading(before)
    assert await _some(reading, 100) == _ALL[:100]
    if limited:
        await reading.aclose()
    after = asyncio.create_task(_list(rig))
    await asyncio.sleep(_A_WHILE)
    assert await before.count() == _COUNT - 100
    assert not after.done()
    if not limited:
        assert [letter.data async for letter in reading] == _ALL[100:]
        assert not after.done()
    await before.disconnect()
    assert await after == _ALL


async def test_lists_at_once_see_everything(rig: Rig) -> None:
    assert await asyncio.gather(*(_list(rig) for _ in range(3))) == [_ALL] * 3


async def test_a_list_takes_nothing_from_a_replay(rig: Rig) -> None:
    before = rig.dead_letters()
    reading = _reading(before)
    await _some(reading, 100)
    replay = asyncio.create_task(_replay(rig))
    await asyncio.sleep(_A_WHILE)
    assert not replay.done()
    await reading.aclose()
    await before.disconnect()
    lists = asyncio.create_task(_list(rig))
    assert await replay == _COUNT
    assert len(await lists) in {0, _COUNT}
    assert await rig.drain() == _ALL


async def test_of_two_replays_one_publishes_everything_in_order(rig: Rig) -> None:
    assert sorted(await asyncio.gather(_replay(rig), _replay(rig))) == [0, _COUNT]
    assert await rig.drain() == _ALL
    assert await _list(rig) == []


async def test_a_purge_takes_nothing_from_a_replay(rig: Rig) -> None:
    replay = asyncio.create_task(_replay(rig))
    await until(lambda: _is_less(rig), "the replay to begin")
    assert await _purge(rig) == 0
    assert await replay == _COUNT
    assert await rig.drain() == _ALL


async def _is_less(rig: Rig) -> bool:
    return await rig.depth("dead") < _COUNT


async def test_what_a_killed_reader_had_is_seen_by_the_next(rig: Rig) -> None:
    url = f"{rig.url}?prefix={rig.prefix}&partitions=2"
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(_READER), url, "150", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        async with asyncio.timeout(30):
            assert await program.stdout.readline() == b"read\n"
        after = asyncio.create_task(_list(rig))
        await asyncio.sleep(_A_WHILE)
        assert not after.done()
    finally:
        program.kill()
        await program.wait()
    assert await after == _ALL


async def test_a_reader_that_follows_a_lost_connection_sees_everything(rig: Rig) -> None:
    for count in (1, 100, 299, 300):
        end = rig.dead_letters()
        await _some(_reading(end), count)
        cut(end)
        assert await _list(rig) == _ALL


async def test_an_end_reads_again_after_a_lost_connection(rig: Rig) -> None:
    async with rig.dead_letters() as end:
        await _some(_reading(end), 100)
        cut(end)
        with pytest.raises(BrokerError):
            await end.remove([])
        assert [letter.data async for letter in end.read()] == _ALL
        after = asyncio.create_task(_list(rig))
        await asyncio.sleep(_A_WHILE)
        assert not after.done()
    assert await after == _ALL


async def test_who_waits_for_too_long_hears_why(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_reader, "WAIT_SECONDS", 1.0)
    before = rig.dead_letters()
    for count in (100, 200):  # with letters left, and with none: it reads from an empty queue then
        reading = _reading(before)
        letters = [await anext(reading) for _ in range(count)]
        with pytest.raises(BrokerError, match=r"another command is .*amqp://.*try again"):
            await _list(rig)
        await before.remove(letters)
    with pytest.raises(BrokerError, match="another command"):  # it holds no letter, and the lock
        await _list(rig)
    await before.disconnect()
    assert await _list(rig) == []


async def test_a_stranger_that_keeps_letters_stops_nobody_and_is_not_overlooked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_reader, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(dead_reader, "RETURN_SECONDS", 0.5)
    async with rig.channel() as channel:
        await channel.basic_get(f"{rig.prefix}.dead")
        assert await _list(rig) == _ALL[1:]
        assert "1 dead letters may be missing here" in caplog.text
        async with rig.dead_letters() as end:
            await end.remove([letter async for letter in end.read()])
    assert await _list(rig) == _ALL[:1]


async def test_what_was_removed_stays_removed_however_soon_its_reader_ends(rig: Rig) -> None:
    assert await _purge(rig) == _COUNT
    assert await _list(rig) == []
