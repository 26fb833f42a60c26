"""Answers to who replays: they reach an address of our own form, and are dropped where nobody waits."""

import logging
import time

import pytest

from prefactor_core.broker.driver import DeadLetterEnd
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq import answers as answers_module
from tests.transports.rabbitmq.rig import Rig, cut


async def _take(end: DeadLetterEnd, count: int) -> list[bytes]:
    taken: list[bytes] = []
    deadline = time.monotonic() + 15
    while len(taken) < count:
        taken += await end.answers()
        assert time.monotonic() < deadline, f"{len(taken)} of {count} came"
    return taken


async def test_answers_arrive_once_and_in_order(rig: Rig) -> None:
    worker, end = rig.consuming(), rig.dead_letters()
    address = await end.open_answers()
    assert address is not None
    assert await end.open_answers() == address
    sent = [b'{"number": %d}' % number for number in range(2_000)]
    for start in range(0, len(sent), 500):
        await worker.answer(address, sent[start : start + 500])
    assert await _take(end, len(sent)) == sent
    start_of_wait = time.monotonic()
    assert await end.answers() == []
    assert 0.5 < time.monotonic() - start_of_wait < 10


async def test_each_end_has_an_address_of_its_own_and_reading_goes_on_beside(rig: Rig) -> None:
    worker, one, other = rig.consuming(), rig.dead_letters(), rig.dead_letters()
    first, second = await one.open_answers(), await other.open_answers()
    assert first is not None
    assert second is not None
    await worker.answer(second, [b"2"])
    await worker.answer(first, [b"1"])
    assert await _take(one, 1) == [b"1"]
    assert await _take(other, 1) == [b"2"]
    assert [letter async for letter in rig.dead_letters().read()] == []


async def test_what_nobody_waits_for_is_dropped(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    worker, end = rig.consuming(), rig.dead_letters()
    address = await end.open_answers()
    assert address is not None
    await worker.answer(address, [])
    await end.disconnect()
    with pytest.raises(BrokerError):
        await end.answers()
    await worker.answer(address, [b"1", b"2"])
    await worker.partitions()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_address_of_another_form_is_nobodys(rig: Rig) -> None:
    worker, end = rig.consuming(), rig.dead_letters()
    address = await end.open_answers()
    assert address is not None
    await worker.partitions()
    for wrong in ("", "0", "dead", f"{rig.prefix}.0", f"{rig.prefix}.answers.{address}", f"{address}\n", "é"):
        await worker.answer(wrong, [b"wrong"])
    await worker.answer(address.upper() if address.upper() != address else "x", [b"wrong"])
    await worker.answer(address, [b"right"])
    assert await _take(end, 1) == [b"right"]
    assert await rig.depth("0") == await rig.depth("dead") == 0


async def test_what_is_not_taken_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MOST_ANSWERS", 5)
    monkeypatch.setattr(answers_module, "_PREFETCH", 2)
    worker, end = rig.consuming(), rig.dead_letters()
    address = await end.open_answers()
    assert address is not None
    for number in range(30):
        await worker.answer(address, [b"%d" % number])
    assert await _take(end, 7) == [b"%d" % number for number in (0, 1, 25, 26, 27, 28, 29)]
    assert await end.answers() == []


async def test_a_lost_connection_is_said(rig: Rig) -> None:
    end = rig.dead_letters()
    address = await end.open_answers()
    cut(end)
    with pytest.raises(BrokerError, match="lost"):
        await end.answers()
    assert await end.open_answers() != address
    assert await end.answers() == []
