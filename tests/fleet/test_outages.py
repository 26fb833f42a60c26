"""The API unavailable, its token refused, and the API asking everybody to wait: nothing is dead-lettered.

``PREFACTOR_TEST_FULL=1`` has outages of a minute.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import TOKEN, Child, Fleet, running_fleet, until
from tests.support.watching import (
    FULL,
    Probed,
    dead_letters,
    on_redis,
    probed_worker,
    set_faults,
)

OUTAGE_SECONDS = 60.0 if FULL else 3.0
GROWTH_MIB = 50.0


async def start_agent(fleet: Fleet) -> Child:
    """Start one that publishes until well after the outage."""
    nests = int((OUTAGE_SECONDS + 5) / 0.5)
    return await fleet.agent(
        *("--instances", "40", "--tasks", "40", "--spans", str(4 * nests), "--pace", "0.5", "--bytes", "300")
    )


async def wait(fleet: Fleet, probed: Probed) -> None:
    """Spend the outage, alive and not ready; nothing takes effect."""
    loop = asyncio.get_running_loop()
    until_then = loop.time() + OUTAGE_SECONDS
    before = await fleet.effects()
    while loop.time() < until_then:
        assert await probed.answers("/healthz", 200)
        status, words = await probed.ask("/readyz")
        assert status == 503, words
        await asyncio.sleep(0.5)
    assert await fleet.effects() == before


async def check_all(fleet: Fleet, puts: int, probed: Probed) -> None:
    """Everything takes effect once and in order, and nothing was dead-lettered."""
    await takes_effect(fleet, puts)
    await stop(probed.child)
    assert await dead_letters(fleet) == []
    check(fleet, puts)


def lines(probed: Probed, words: str) -> int:
    return sum(words in line for line in probed.child.log.splitlines())


async def test_the_api_unavailable_for_a_while(fleet: Fleet) -> None:
    agent = await start_agent(fleet)
    probed = await probed_worker(fleet)
    await takes_effect(fleet, 500)
    before = probed.resident_mib
    await fleet.emulator.kill()
    await until(lambda: probed.answers("/readyz", 503), 180, "it notices")
    await wait(fleet, probed)
    during = probed.resident_mib
    await fleet.emulator.start()
    # It is probed with pauses of 10 s at most.
    await until(lambda: probed.answers("/readyz", 200), 180, "it goes on by itself")
    await until(lambda: probed.metric_is("prefactor_api_unavailable", lambda away: away == 0), 180)
    puts = await published(fleet, agent, OUTAGE_SECONDS + 60)
    await takes_effect(fleet, puts)
    assert max(during, probed.resident_mib) < before + GROWTH_MIB
    await check_all(fleet, puts, probed)
    assert lines(probed, "is unavailable, and everything waits") == lines(probed, " is back, after ") == 1


@asynccontextmanager
async def fleet_with_a_token(url: str, folder: Path) -> AsyncIterator[tuple[Fleet, Path]]:
    """A fleet whose API takes one token, and the file with it."""
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    async with running_fleet(url, folder, "--token", TOKEN) as fleet:
        yield fleet, file


@on_redis
async def test_a_token_that_is_bad_from_the_start(transport_url: str, tmp_path: Path) -> None:
    async with fleet_with_a_token(transport_url, tmp_path) as (fleet, file):
        puts = await published(fleet, await fleet.agent("--instances", "5", "--spans", "4"))
        file.write_text("mistyped\n")
        probed = await probed_worker(fleet, "--api-token-file", str(file), PREFACTOR_API_TOKEN="")
        await until(
            lambda: probed.answers("/readyz", 503), 180, "it says so before there is anything to send"
        )
        await until(lambda: probed.metric_is("prefactor_api_token_refused", lambda refused: refused == 1))
        unowned = "prefactor_partitions_unowned"
        await until(lambda: probed.metric_is(unowned, lambda number: number == 16), 180, "nobody owns any")
        file.write_text(f"{TOKEN}\n")
        await takes_effect(fleet, puts)
        await until(lambda: probed.metric_is(unowned, lambda number: number == 0), 180, "it owns all")
        await until(lambda: probed.answers("/readyz", 200), 180, "it goes on by itself")
        check(fleet, puts)


@on_redis
async def test_one_429_slows_the_whole_worker(fleet: Fleet) -> None:
    """All instances wait for as long as one request was told to."""
    agent = await fleet.agent("--instances", "60", "--tasks", "60", "--spans", "80", "--pace", "0.2")
    probed = await probed_worker(fleet)
    await takes_effect(fleet, 500)
    await set_faults(fleet.emulator, "throttle:retry_after=4,count=1")
    await until(
        lambda: probed.metric_is("prefactor_api_paused_seconds", lambda left: left > 0), 10, "it is told"
    )
    assert await probed.answers("/healthz", 200)
    puts = await published(fleet, agent)
    await check_all(fleet, puts, probed)
    times = [datetime.fromisoformat(effect["at"]).timestamp() for effect in await fleet.emulator.effects()]
    assert len(times) == puts
    # What was under way at that moment still took effect, and then nothing did.
    assert 3 < max(later - earlier for earlier, later in pairwise(times)) < 10
    assert lines(probed, "is unavailable, and everything waits") == 0
