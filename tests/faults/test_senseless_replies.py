"""Bulk replies that are successes and say nothing: sent again with backoff, and said so in the log.

What is counted can only be less on a busy machine: requests.
"""

import asyncio
import logging

import pytest

from prefactor_core import HttpClientConfig, PrefactorCoreClient, PrefactorCoreConfig
from tests.client.load import VERSION, registry
from tests.support.senseless_api import SENSELESS, senseless_api

SECONDS = 4.0
INSTANCES = 10
REQUESTS = 8 * INSTANCES
"""Far more than backoff allows, and far fewer than there are without."""


@pytest.mark.parametrize("kind", SENSELESS)
async def test_an_agent_backs_off_and_goes_on_when_replies_make_sense(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with senseless_api(kind) as (api, url):
        http = HttpClientConfig(api_url=url, api_token="test")
        client = PrefactorCoreClient(PrefactorCoreConfig(http_config=http, schema_registry=registry()))
        await client.initialize()
        for _ in range(INSTANCES):
            async with (
                client.create_agent_instance(agent_version=VERSION) as instance,
                instance.span("t:outer"),
            ):
                pass
        await asyncio.sleep(SECONDS)
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        requests = api.requests
        api.senseless = False
        summary = await client.close(timeout=60)
    assert requests <= REQUESTS
    assert warnings, "somebody is told"
    assert len(warnings) <= 5 + INSTANCES, "once, and not with every request"
    assert summary.complete, summary
    assert (summary.dead_lettered, summary.delivered) == (0, summary.put)
    assert len(set(api.done)) == summary.put
