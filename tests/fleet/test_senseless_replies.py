"""A worker and bulk replies that are successes and say nothing; ``tests/faults`` has it with an agent."""

import asyncio

import pytest

from tests.fleet.scenario import published
from tests.support.fleet import Fleet, until
from tests.support.senseless_api import SENSELESS, senseless_api
from tests.support.watching import dead_letters, on_redis

SECONDS = 8.0
INSTANCES = 10
REQUESTS = 8 * INSTANCES
"""Far more than backoff allows, and far fewer than there are without."""


@on_redis
@pytest.mark.parametrize("kind", SENSELESS)
async def test_a_worker_backs_off_and_goes_on_when_replies_make_sense(fleet: Fleet, kind: str) -> None:
    puts = await published(fleet, await fleet.agent("--instances", str(INSTANCES), "--spans", "4"))
    async with senseless_api(kind) as (api, url):
        worker = await fleet.worker("--api-url", url)
        await until(lambda: api.requests > 0, 180, "it works")
        await asyncio.sleep(SECONDS)
        requests = api.requests
        warnings = [line for line in worker.log.splitlines() if "WARNING" in line]
        api.senseless = False
        assert requests <= REQUESTS
        assert warnings, "somebody is told"
        assert len(warnings) <= 5 + INSTANCES, "once, and not with every request"
        await until(lambda: len(set(api.done)) == puts, 180, "everything is delivered")
    assert await dead_letters(fleet) == []
