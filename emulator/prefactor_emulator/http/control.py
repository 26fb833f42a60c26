"""The emulator's own routes: looking at what happened, and what only the service's side can do."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import Behind
from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import invalid_action, not_found, utc_now
from prefactor_emulator.requests import Body, Text

_Limit = Annotated[int, Query(ge=0, le=100_000)]
_Seq = Annotated[int, Query(ge=0, le=2**62)]


class _Termination(Body):
    reason: Text | None = None


router = APIRouter(prefix="/emulator", route_class=JsonRoute, include_in_schema=False)


@router.get("/instances")
async def instances(
    behind: Behind, limit: _Limit = 1000, before: _Seq = 2**62, status: str | None = None
) -> Response:
    """List instances, the newest first."""
    return json_response({"instances": behind.inspection.instances(limit, before, status)})


@router.get("/instances/{id}")
async def instance(behind: Behind, id: str) -> Response:
    """Show an instance with its spans."""
    found = behind.inspection.instance(id)
    if found is None:
        raise not_found("such agent instance")
    return json_response(found)


@router.post("/instances/{id}/terminate")
async def terminate(behind: Behind, id: str, body: _Termination) -> Response:
    """End an instance, also one that has not started."""
    with behind.store.transaction():
        done = behind.store.terminate_instance(id, body.reason, utc_now())
    if not done:
        raise invalid_action("there is no such instance, or it is over already")
    return json_response({"id": id, "status": "terminated"})


@router.get("/effects")
async def effects(behind: Behind, after: _Seq = 0, limit: _Limit = 1000) -> Response:
    """Read on in the log of effects."""
    return json_response({"effects": behind.inspection.effects(after, limit)})


@router.get("/stats")
async def stats(behind: Behind) -> Response:
    """Count effects and requests."""
    counts = behind.inspection.effect_counts()
    return json_response({"effects": counts, "requests": behind.requests})
