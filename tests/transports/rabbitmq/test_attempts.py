"""Attempts in isolation: what their log keeps, and who takes back what a crash did not stop."""

import logging

import pytest

from prefactor_core.transport import MAX_ATTEMPTS
from prefactor_rabbitmq import attempts as attempts_module
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from tests.transports.rabbitmq.rig import RabbitRig, cut
from tests.transports.rig import first, read, until

pytestmark = pytest.mark.usefixtures("impatience")


async def _isolate(rig: RabbitRig) -> None:
    await rig.publish("ab")
    await rig.crash_often(3, 2)


async def _crash_in_attempts(rig: RabbitRig, times: int) -> list[RabbitConsumingEnd]:
    """Let owners begin and lose their connections; they have crashed, unless they are asked for anything."""
    ends: list[RabbitConsumingEnd] = []
    for _ in range(times):
        end, owner, message = await rig.isolated()
        assert await owner.begin(message)
        cut(end)
        assert isinstance(end, RabbitConsumingEnd)
        ends.append(end)
    return ends


async def test_who_has_survived_says_so_once_it_is_connected_again(rig: RabbitRig) -> None:
    await _isolate(rig)
    survivors = await _crash_in_attempts(rig, MAX_ATTEMPTS)
    _, owner, message = await rig.isolated()
    assert await owner.attempts(message) == MAX_ATTEMPTS
    for end in survivors:
        await until(end.fleet, "a fleet")
        await end.fleet()
    # It has read the log before they said so, and reads it again before it refuses.
    assert await owner.begin(message)
    assert await owner.attempts(message) == 0


async def test_attempts_of_this_process_never_count_against_a_message(rig: RabbitRig) -> None:
    await _isolate(rig)
    end = rig.consuming()
    for _ in range(2 * MAX_ATTEMPTS):
        owner, (message,) = await first(end)
        assert await owner.attempts(message) == 0
        assert await owner.begin(message)
        cut(end)
    await end.disconnect()
    _, owner, message = await rig.isolated()
    assert await owner.attempts(message) == 0


async def test_a_log_that_is_gone_needs_no_withdrawal(
    rig: RabbitRig, caplog: pytest.LogCaptureFixture
) -> None:
    await _isolate(rig)
    (survivor,) = await _crash_in_attempts(rig, 1)
    _, owner, message = await rig.isolated()
    assert await owner.settle([message]) == []
    assert await owner.settle(await read(owner, 1)) == []
    await owner.release()
    assert not await rig.exists("0.attempts")
    caplog.clear()
    await until(survivor.fleet, "a fleet")
    await survivor.fleet()
    assert len(survivor._withdrawals._pending) == 0
    assert survivor._topology._count is not None
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not await rig.exists("0.attempts")


async def test_the_log_stays_short_and_keeps_what_stands(
    rig: RabbitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "_STALE", 10)
    await _isolate(rig)
    (survivor,) = await _crash_in_attempts(rig, 1)
    await _crash_in_attempts(rig, 1)
    end, owner, message = await rig.isolated()
    for _ in range(30):
        assert await owner.begin(message)
        await owner.withdraw(message)
    assert await owner.begin(message)
    assert await rig.depth("0.attempts") <= 12
    assert await owner.attempts(message) == 2
    cut(end)
    await until(survivor.fleet, "a fleet")  # its record has been written anew
    await survivor.fleet()
    _, owner, message = await rig.isolated()
    assert await owner.attempts(message) == 2
