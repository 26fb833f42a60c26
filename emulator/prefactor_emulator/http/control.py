"""The emulator's own routes: looking at what happened, and telling it to misbehave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from prefactor_emulator.faults.kinds import FaultSpecError
from prefactor_emulator.faults.middleware import FaultMiddleware
from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import invalid, invalid_action, not_found, utc_now
from prefactor_emulator.requests import Body, Text
from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.storage.store import Store

_Limit = Annotated[int, Query(ge=0, le=100_000)]
_Seq = Annotated[int, Query(ge=0, le=2**62)]


class _Termination(Body):
    reason: Text | None = None


class _Faults(Body):
    faults: list[str]
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """What these routes look into and switch, as the application keeps it in `state.desk`.

    Attributes:
        store: What only the service's side can change.
        inspection: What happened.
        faults: Where faults run.
        requests_served: Counts the requests to the API.
    """

    store: Store
    inspection: Inspection
    faults: FaultMiddleware
    requests_served: Callable[[], int]


async def _desk(request: Request) -> Desk:
    return cast("Desk", request.app.state.desk)


_Desk = Annotated[Desk, Depends(_desk)]

router = APIRouter(prefix="/emulator", route_class=JsonRoute, include_in_schema=False)


@router.get("/instances")
async def instances(
    desk: _Desk, limit: _Limit = 1000, before: _Seq = 2**62, status: str | None = None
) -> Response:
    """List instances, the newest first."""
    return json_response({"instances": desk.inspection.instances(limit, before, status)})


@router.get("/instances/{id}")
async def instance(desk: _Desk, id: str) -> Response:
    """Show an instance with its spans."""
    found = desk.inspection.instance(id)
    if found is None:
        raise not_found("such agent instance")
    return json_response(found)


@router.post("/instances/{id}/terminate")
async def terminate(desk: _Desk, id: str, body: _Termination) -> Response:
    """End an instance, also one that has not started."""
    with desk.store.transaction():
        done = desk.store.terminate_instance(id, body.reason, utc_now())
    if not done:
        raise invalid_action("there is no such instance, or it is over already")
    return json_response({"id": id, "status": "terminated"})


@router.get("/effects")
async def effects(desk: _Desk, after: _Seq = 0, limit: _Limit = 1000) -> Response:
    """Read on in the log of effects."""
    return json_response({"effects": desk.inspection.effects(after, limit)})


@router.get("/stats")
async def stats(desk: _Desk) -> Response:
    """Count effects and requests."""
    counts = desk.inspection.effect_counts()
    return json_response({"effects": counts, "requests": desk.requests_served()})


@router.get("/faults")
async def active_faults(desk: _Desk) -> Response:
    """Show the active faults."""
    faults = desk.faults
    return json_response({"faults": faults.specs, "hits": faults.hits, "seed": faults.seed})


@router.post("/faults")
async def replace_faults(desk: _Desk, body: _Faults) -> Response:
    """Replace the active faults."""
    try:
        desk.faults.activate(body.faults, body.seed or 0)
    except FaultSpecError as error:
        raise invalid({"faults": [str(error)]}) from None
    return await active_faults(desk)


@router.delete("/faults")
async def clear_faults(desk: _Desk) -> Response:
    """Behave again."""
    desk.faults.activate([], 0)
    return await active_faults(desk)
