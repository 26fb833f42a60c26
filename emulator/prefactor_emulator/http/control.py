"""The emulator's own routes: looking at what happened, and what only the service's side can do."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import TheServices
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
    services: TheServices, limit: _Limit = 1000, before: _Seq = 2**62, status: str | None = None
) -> Response:
    """List instances, the newest first."""
    found = services.inspection.instances(limit, before, status)
    for each in found:
        services.inspection.count_spans(each)
    return json_response({"instances": found})


@router.get("/instances/{id}")
async def instance(services: TheServices, id: str) -> Response:
    """Show an instance with its spans."""
    found = services.inspection.instance(id)
    if found is None:
        raise not_found("such agent instance")
    return json_response(found)


@router.post("/instances/{id}/terminate")
async def terminate(services: TheServices, id: str, body: _Termination) -> Response:
    """End an instance, also one that has not started."""
    with services.store.transaction():
        done = services.store.terminate_instance(id, body.reason, utc_now())
    if not done:
        raise invalid_action("there is no such instance, or it is over already")
    return json_response({"id": id, "status": "terminated"})


@router.get("/effects")
async def effects(services: TheServices, after: _Seq = 0, limit: _Limit = 1000) -> Response:
    """Read on in the log of effects."""
    return json_response({"effects": services.inspection.effects(after, limit)})


@router.get("/stats")
async def stats(services: TheServices) -> Response:
    """Count effects and requests."""
    counts = services.inspection.effect_counts()
    return json_response({"effects": counts, "requests": services.requests})
