"""Workers that come and go share the partitions evenly, and nothing is disposed of by two of them."""

import json
import re
from pathlib import Path
from typing import Any

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import TOKEN, Child, Fleet, running_fleet, until
from tests.support.watching import probed_worker
from tests.worker.commands import command

PARTITIONS = 16


def owned(worker: Child) -> int:
    """Return how many partitions a worker owns, by its own log."""
    told = re.findall(r"rebalance of .*; owns (\d+)", worker.log)
    return int(told[-1]) if told else 0


def settled(worker: Child) -> int:
    """Return how many operations a worker says it has disposed of."""
    found = re.search(r"stopped: \d+ received, (\d+) settled .*, (\d+) dead-lettered", worker.log)
    assert found is not None, worker.log
    return int(found[1]) + int(found[2])


async def share(*workers: Child, partitions: list[int]) -> None:
    """Wait until workers own so many partitions."""
    await until(lambda: [owned(one) for one in workers] == partitions, 180, f"{partitions} partitions")


async def test_one_four_two(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "60", "--spans", "60", "--pace", "0.15")
    workers = [await fleet.worker()]
    await share(*workers, partitions=[PARTITIONS])
    workers += [await fleet.worker() for _ in range(3)]
    await share(*workers, partitions=[4, 4, 4, 4])
    await stop(*workers[1:3])
    await share(workers[0], workers[3], partitions=[8, 8])
    puts = await published(fleet, agent)
    await takes_effect(fleet, puts)
    await stop(workers[0], workers[3])
    check(fleet, puts)
    total_settled = sum(map(settled, workers))
    if fleet.url.startswith("redis"):
        assert total_settled == puts, "each was taken off the broker by exactly one of them"
    else:  # RabbitMQ may hand a few settled messages out again when their owner leaves, to no effect
        assert total_settled >= puts


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
        probed = await probed_worker(fleet, "--api-token-file", str(file), PREFACTOR_API_TOKEN="")
        refused, good = probed.child, await fleet.worker()
        await share(refused, good, partitions=[8, 8])
        file.write_text("revoked-token")
        agent = await fleet.agent("--instances", "40", "--spans", "60", "--pace", "0.2")
        await share(refused, good, partitions=[0, PARTITIONS])
        found = await total(fleet)
        assert (found["standing_aside"], found["owned"]) == (1, PARTITIONS)
        assert await probed.ask("/readyz") == (503, "the API refuses the token; this worker stands aside\n")
        assert await probed.answers("/healthz", 200)
        assert await probed.metric("prefactor_api_token_refused") == 1
        await takes_effect(fleet, await published(fleet, agent))
        assert [owned(refused), owned(good)] == [0, PARTITIONS]

        file.write_text(TOKEN)
        await share(refused, good, partitions=[8, 8])
        await until(lambda: probed.answers("/readyz", 200), 180, "it is ready")
        assert await probed.metric("prefactor_api_token_refused") == 0
        assert (await total(fleet))["standing_aside"] == 0
        assert refused.log.count("standing aside from") == 1
        assert refused.log.count("refuses the token") == refused.log.count(" is back, after ") == 1
        assert "revoked-token" not in refused.log
        assert TOKEN not in refused.log
        await published(fleet, await fleet.agent("--instances", "20", "--spans", "5"))
        await takes_effect(fleet, fleet.puts())
        await stop(refused, good)
        assert settled(refused) > 0
        check(fleet, fleet.puts())
