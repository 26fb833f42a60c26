"""Workers that come and go share the partitions evenly, and nothing is disposed of by two of them."""

import re
import signal

from tests.support.fleet import Child, Figures, Fleet, until

PARTITIONS = 16


def owned(worker: Child) -> int:
    """Return how many partitions a worker owns, by its own log."""
    count = 0
    for line in worker.log.splitlines():
        if took := re.search(r"took partitions \[([^]]*)\]", line):
            count += len(took[1].split(","))
        if re.search(r"partition \d+ of .* was (lost|given up)", line):
            count -= 1
    return count


def settled(worker: Child) -> int:
    """Return how many operations a worker says it has disposed of."""
    found = re.search(r"stopped: \d+ received, (\d+) settled, (\d+) dead-lettered", worker.log)
    assert found is not None, worker.log
    return int(found[1]) + int(found[2])


async def test_one_four_two(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "60", "--spans", "60", "--pace", "0.15")
    workers = [await fleet.worker()]
    await until(lambda: owned(workers[0]) == PARTITIONS, 20, "the first worker takes all")
    workers += [await fleet.worker() for _ in range(3)]
    await until(lambda: [owned(worker) for worker in workers] == [4, 4, 4, 4], 30, "four workers share")
    for leaver in workers[1:3]:
        leaver.signal(signal.SIGTERM)
    for leaver in workers[1:3]:
        assert await leaver.ended(20) == 0, leaver.log
    stayed = [workers[0], workers[3]]
    await until(lambda: [owned(worker) for worker in stayed] == [8, 8], 30, "two workers share")
    report = await fleet.report(agent)
    assert report["left"] == 0
    await until(lambda: fleet.effects_are(report["put"]), 30, "everything takes effect")
    for worker in stayed:
        worker.signal(signal.SIGTERM)
        assert await worker.ended(20) == 0, worker.log
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
    # Each operation was taken off the broker by exactly one of them.
    assert sum(settled(worker) for worker in workers) == report["put"]
