"""Workers that come and go share the partitions evenly, and nothing is disposed of by two of them."""

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.support.fleet import TOKEN, Child, Figures, Fleet, running_fleet, until
from tests.support.watching import probed_worker
from tests.worker.commands import command

PARTITIONS = 16


def owned(worker: Child) -> int:
    """Return how many partitions a worker owns, by its own log."""
    told = re.findall(r"rebalance of .*; owns (\d+)", worker.log)
    return int(told[-1]) if told else 0


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


async def total(fleet: Fleet) -> dict[str, Any]:
    """Return what `status` says of the whole fleet."""
    done = await command("status", "--transport", fleet.url, "--json")
    assert done.status == 0, done.errors
    found: dict[str, Any] = json.loads(done.output)["total"]
    return found


async def test_a_worker_whose_token_is_refused_stands_aside(transport_url: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with running_fleet(transport_url, tmp_path, "--token", TOKEN) as fleet:
        agent = await fleet.agent("--instances", "40", "--spans", "60", "--pace", "0.2")
        probed = await probed_worker(fleet, "--api-token-file", str(file), PREFACTOR_API_TOKEN="")
        refused, good = probed.child, await fleet.worker()
        await until(lambda: [owned(refused), owned(good)] == [8, 8], 30, "two workers share")
        file.write_text("revoked-token")
        await until(lambda: [owned(refused), owned(good)] == [0, PARTITIONS], 40, "the other takes all")
        found = await total(fleet)
        assert (found["standing_aside"], found["owned"]) == (1, PARTITIONS)
        assert await probed.ask("/readyz") == (
            503,
            "the API refuses the token; this worker stands aside\n",
        )
        report = await fleet.report(agent)
        await until(lambda: fleet.effects_are(report["put"]), 60, "everything takes effect")
        assert [owned(refused), owned(good)] == [0, PARTITIONS]

        file.write_text(TOKEN)
        await until(lambda: [owned(refused), owned(good)] == [8, 8], 40, "it takes part again")
        await until(lambda: probed.answers("/readyz", 200), 20, "it is ready")
        assert (await total(fleet))["standing_aside"] == 0
        assert refused.log.count("standing aside from") == 1
        assert refused.log.count("the API refuses the token") == 1
        await fleet.report(await fleet.agent("--instances", "20", "--spans", "5"))
        await until(lambda: fleet.effects_are(fleet.puts()), 30, "both deliver")
        for worker in (refused, good):
            worker.signal(signal.SIGTERM)
            assert await worker.ended(20) == 0, worker.log
        assert settled(refused) > 0
        assert fleet.figures() == Figures(fleet.puts(), lost=0, doubled=0, out_of_order=0, unexpected=0)
