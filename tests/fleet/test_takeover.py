"""A worker that dies, and one that freezes and wakes: the next goes on in order, and no harm is done."""

import signal

from tests.support.fleet import Figures, Fleet, until


async def test_a_killed_worker_is_succeeded(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "50", "--spans", "40", "--pace", "0.1")
    first = await fleet.worker()
    await until(lambda: fleet.effects_are(300), 30, "the first worker works")
    await first.kill()
    after = await fleet.effects()
    second = await fleet.worker()
    await until(lambda: fleet.effects_are(after + 500), 30, "the second worker goes on")
    report = await fleet.report(agent)
    second.signal(signal.SIGTERM)
    assert await second.ended(20) == 0, second.log
    await fleet.drain()
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)


async def test_a_frozen_worker_is_succeeded_and_wakes_to_nothing(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "50", "--spans", "40", "--pace", "0.2")
    frozen = await fleet.worker()
    await until(lambda: fleet.effects_are(300), 30, "the first worker works")
    frozen.signal(signal.SIGSTOP)  # somewhere: mostly inside a blocked read
    second = await fleet.worker()
    before = await fleet.effects()
    await until(lambda: fleet.effects_are(before + 500), 40, "the second worker takes over")
    frozen.signal(signal.SIGCONT)
    await until(lambda: "lost (" in frozen.log, 20, "it notices what it has lost")
    report = await fleet.report(agent)
    for worker in (frozen, second):
        worker.signal(signal.SIGTERM)
        assert await worker.ended(20) == 0, worker.log
    await fleet.drain()
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
