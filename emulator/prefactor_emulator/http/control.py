"""The emulator's own routes: looking at what happened, and telling it to misbehave."""

from collections.abc import Callable

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prefactor_emulator.faults.middleware import FaultMiddleware
from prefactor_emulator.faults.options import FaultSpecError
from prefactor_emulator.fields import TEXT, Complaints, Fields, Kind
from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.http.bodies import answering, json_response, query_number, read_object
from prefactor_emulator.model import Refusal
from prefactor_emulator.openapi import OPENAPI
from prefactor_emulator.storage.store import Store

_SPECS: Kind[list[str]] = Kind(
    "must be a list of fault descriptions like error:rate=0.1",
    lambda value: isinstance(value, list) and all(isinstance(spec, str) for spec in value),
    [],
)
_SEED: Kind[int] = Kind("must be a whole number", lambda value: type(value) is int, 0)


def description_route() -> Route:
    """Build where the API's description is found."""
    description = to_json(OPENAPI, indent=2)

    async def describe(_request: Request) -> Response:
        return json_response(description)

    return Route("/openapi.json", answering(describe), methods=["GET"])


def inspection_routes(
    inspection: Inspection, store: Store, requests_served: Callable[[], int]
) -> list[Route]:
    """Build what tests and checkers read, and the one thing that only the service's side can do."""

    async def instances(request: Request) -> Response:
        limit = query_number(request, "limit", default=1000, most=100_000)
        before = query_number(request, "before", default=2**62, most=2**62)
        status = request.query_params.get("status")
        return json_response({"instances": inspection.instances(limit, before, status)})

    async def instance(request: Request) -> Response:
        found = inspection.instance(request.path_params["id"])
        if found is None:
            raise Refusal(404, "not_found", "there is no such agent instance")
        return json_response(found)

    async def terminate(request: Request) -> Response:
        complaints = Complaints()
        reason = Fields(await read_object(request), complaints).optional("reason", TEXT)
        complaints.refuse_if_any()
        instance_id = request.path_params["id"]
        with store.transaction():
            done = store.terminate_instance(instance_id, reason or "terminated by the emulator")
        if not done:
            raise Refusal(409, "invalid_action", "there is no such instance, or it is over already")
        return json_response({"id": instance_id, "status": "terminated"})

    async def effects(request: Request) -> Response:
        after = query_number(request, "after", default=0, most=2**62)
        limit = query_number(request, "limit", default=1000, most=100_000)
        return json_response({"effects": inspection.effects(after, limit)})

    async def stats(_request: Request) -> Response:
        counts = inspection.effect_counts()
        return json_response({"effects": counts, "requests": requests_served()})

    return [
        Route("/emulator/instances", answering(instances), methods=["GET"]),
        Route("/emulator/instances/{id}", answering(instance), methods=["GET"]),
        Route("/emulator/instances/{id}/terminate", answering(terminate), methods=["POST"]),
        Route("/emulator/effects", answering(effects), methods=["GET"]),
        Route("/emulator/stats", answering(stats), methods=["GET"]),
    ]


def fault_routes(faults: Callable[[], FaultMiddleware]) -> list[Route]:
    """Build the switch for faults.

    Args:
        faults: Tells where they run, which is built around these very routes.
    """

    def active() -> Response:
        running = faults()
        return json_response({"faults": running.specs, "hits": running.hits, "seed": running.seed})

    async def show(_request: Request) -> Response:
        return active()

    async def replace(request: Request) -> Response:
        complaints = Complaints()
        fields = Fields(await read_object(request), complaints)
        specs = fields.required("faults", _SPECS)
        seed = fields.optional("seed", _SEED)
        complaints.refuse_if_any()
        try:
            faults().activate(specs, seed or 0)
        except FaultSpecError as error:
            complaints.add("faults", str(error))
            complaints.refuse_if_any()
        return active()

    async def clear(_request: Request) -> Response:
        faults().activate([], 0)
        return active()

    return [
        Route("/emulator/faults", answering(show), methods=["GET"]),
        Route("/emulator/faults", answering(replace), methods=["POST"]),
        Route("/emulator/faults", answering(clear), methods=["DELETE"]),
    ]
