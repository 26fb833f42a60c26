"""A worker that dies or freezes: the next goes on in order, and who wakes does no harm."""

import signal

import pytest

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import Fleet, until


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_is_succeeded(fleet: Fleet, number: signal.Signals) -> None:
    agent = await fleet.agent("--instances", "50", "--spans", "40", "--pace", "0.2")
    first = await fleet.worker()
    await takes_effect(fleet, 300)
    first.signal(number)  # frozen, it is somewhere: mostly inside a blocked read
    before = await fleet.effects()
    second = await fleet.worker()
    await takes_effect(fleet, before + 500)
    workers = [second]
    if number is signal.SIGSTOP:
        first.signal(signal.SIGCONT)
        await until(lambda: "lost (" in first.log, 180, "it notices what it has lost")
        workers.append(first)
    puts = await published(fleet, agent)
    await stop(*workers)
    await fleet.drain()
    check(fleet, puts)
