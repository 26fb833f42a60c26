"""What the tests of the published HTTP client call it with, and what they expect of any reply."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from prefactor_http import AgentInstance, HttpClientConfig, PrefactorApiError, PrefactorHttpClient

from prefactor_core.identifiers import is_pfid
from tests.peers.looking import serving

Keys = Callable[[], str | None]
"""Gives each call its idempotency key."""

STARTED: Final = datetime(2026, 3, 1, 9, 59, 0, 123000, tzinfo=UTC)
FINISHED: Final = datetime(2026, 3, 1, 10, 0, 0, 456000, tzinfo=UTC)

VERSION: Final = {"name": "Bookkeeper", "external_identifier": "books-1.0"}
RISK: Final = {
    "action_profile": {"read_data": "allowed", "destroy_data": "disallowed"},
    "params_data_categories": {"financial_information": "included"},
    "result_data_categories": {"classification": "internal"},
}
SCHEMAS: Final[dict[str, Any]] = {
    "external_identifier": "books-schemas-1",
    "span_schemas": {"plain": {"type": "object"}},
    "span_result_schemas": {"plain": {"type": "object"}},
    "span_type_schemas": [
        {
            "name": "typed",
            "params_schema": {"type": "object", "properties": {"question": {"type": "string"}}},
            "result_schema": {"type": "object", "properties": {"answer": {"type": "string"}}},
            "title": "A question",
            "description": "What was asked, and what came of it",
            "template": "{{ question }}: {{ answer }}",
            "data_risk": RISK,
        }
    ],
    "quality_schemas": [
        {
            "name": "accuracy",
            "schema": {"type": "object"},
            "title": "Accuracy",
            "description": "How right the books are",
            "template": "{{ right }} of {{ all }}",
            "data_risk": RISK,
        }
    ],
}


@asynccontextmanager
async def misbehaving(*options: str, retries: int = 0) -> AsyncIterator[PrefactorHttpClient]:
    """Run an emulator with options of its command line, and the client with it."""
    with serving(*options) as url:
        config = HttpClientConfig(url, uuid4().hex, max_retries=retries, initial_retry_delay=0.01)
        async with PrefactorHttpClient(config) as client:
            yield client


async def registered(client: PrefactorHttpClient, **options: Any) -> AgentInstance:
    """Register an instance with the versions above."""
    return await client.agent_instances.register(VERSION, SCHEMAS, **options)


async def started(client: PrefactorHttpClient, **options: Any) -> AgentInstance:
    """Register an instance and start it."""
    instance = await registered(client, **options)
    return await client.agent_instances.start(instance.id)


async def ids(client: PrefactorHttpClient, count: int) -> list[str]:
    """Have the API generate ids."""
    reply = await client.request("POST", "/api/v1/pfid/generate", json_data={"count": count})
    made: list[str] = reply["details"]["pfids"]
    assert len(set(made)) == count
    assert all(map(is_pfid, made))
    return made


async def terminate(client: PrefactorHttpClient, instance_id: str, reason: str) -> AgentInstance:
    """Terminate an instance from the side of the service."""
    path = f"/api/v1/agent_instance/{instance_id}/terminate"
    reply = await client.request("POST", path, json_data={"reason": reason})
    return AgentInstance.model_validate(reply["details"])


def is_now(moment: datetime | None) -> bool:
    """Whether a moment is one of this test's: the API's times may be rounded, and tests may take minutes."""
    return moment is not None and abs(datetime.now(UTC) - moment) < timedelta(minutes=10)


def said(error: PrefactorApiError) -> tuple[int, str]:
    """Return the status and the code of a refusal."""
    return error.status_code, error.code
