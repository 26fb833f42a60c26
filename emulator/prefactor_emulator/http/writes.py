"""The routes of the Prefactor API."""

from collections.abc import Callable
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.http.paths import API_PREFIX, BULK_PATH, WRITE_PATHS
from prefactor_emulator.faults.hooks import operation_hooks
from prefactor_emulator.rules.instances import find_instance, instance_details
from prefactor_emulator.http.bodies import answering, json_response, read_object
from prefactor_emulator.model import OperationType
from prefactor_emulator.requests import execute_bulk, operation_from_request
from prefactor_emulator.rules.execute import execute
from prefactor_emulator.storage.store import Store


def utc_now() -> str:
    """Read the clock as the API writes times."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def api_routes(
    store: Store, accounts: Accounts, clock: Callable[[], str] = utc_now, *, dedup: bool = True
) -> list[Route]:
    """Build the API over a store.

    Args:
        store: Where everything is kept.
        accounts: Who may use it.
        clock: Tells the present.
        dedup: Whether a repeat under a known key is without effect.
    """

    def identified(request: Request) -> str:
        return accounts.identify(request.headers.get("authorization"))

    async def ping(request: Request) -> Response:
        identified(request)
        return json_response({"status": "success", "details": {}})

    async def show(request: Request) -> Response:
        instance = find_instance(store, identified(request), request.path_params["id"])
        return json_response({"status": "success", "details": instance_details(instance)})

    async def bulk(request: Request) -> Response:
        account = identified(request)
        body = await read_object(request)
        with store.transaction():
            reply = execute_bulk(store, account, body, clock, operation_hooks(request.scope), dedup=dedup)
        return json_response(reply)

    def write(path: str, operation_type: OperationType) -> Route:
        async def perform(request: Request) -> Response:
            account = identified(request)
            body = await read_object(request)
            operation = operation_from_request(operation_type, request.path_params.get("id"), body)
            hooks = operation_hooks(request.scope)
            with store.transaction():
                reply = execute(store, account, operation, clock(), hooks, dedup=dedup)
            return json_response(reply)

        return Route(API_PREFIX + path, answering(perform), methods=["POST"])

    return [
        Route(API_PREFIX + BULK_PATH, answering(bulk), methods=["POST"]),
        Route(API_PREFIX + "/ping", answering(ping), methods=["GET"]),
        *(write(path, operation_type) for operation_type, path in WRITE_PATHS.items()),
        Route(API_PREFIX + "/agent_instance/{id}", answering(show), methods=["GET"]),
    ]
