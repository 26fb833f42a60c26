"""What the routes of the API are given: who asks, and the rules that judge what is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.http.errors import json_response
from prefactor_emulator.http.hooks import operation_hooks
from prefactor_emulator.model import Identity, Refusal
from prefactor_emulator.operations import Operation, OperationHook
from prefactor_emulator.requests import Pfid, Write
from prefactor_emulator.rules.call import Call
from prefactor_emulator.rules.execution import Execution
from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.storage.store import Store


@dataclass(slots=True)
class Services:
    """What the routes use, as the application keeps it in `state.services`.

    Attributes:
        accounts: Who may use the API.
        store: What is kept.
        execution: The API's rules.
        inspection: What happened.
        requests: How many requests the API was sent.
    """

    accounts: Accounts
    store: Store
    execution: Execution
    inspection: Inspection
    requests: int = 0


async def services_of(request: Request) -> Services:
    """Return what the routes use."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]
"""What the routes use."""


async def _identity(
    services: TheServices,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None, Depends(HTTPBearer(scheme_name="token", auto_error=False))
    ],
) -> Identity:
    return services.accounts.identify(credentials.credentials.strip() if credentials else None)


Caller = Annotated[Identity, Depends(_identity)]
"""Whoever has a token that is accepted."""


async def _account_call(services: TheServices, caller: Caller) -> Call:
    if caller.deployment is not None:
        raise Refusal(401, "unauthorized", "a deployment's token reads nothing and manages no agents")
    return services.execution.call(caller)


AccountCall = Annotated[Call, Depends(_account_call)]
"""The circumstances of what only an account's own token may do."""


class _Writer:
    def __init__(self, execution: Execution, caller: Identity, hooks: Sequence[OperationHook]) -> None:
        self._execution = execution
        self._caller = caller
        self._hooks = hooks

    def __call__(self, body: Write, target: str | None = None) -> Response:
        """Carry out the one operation of a single request."""
        return json_response(self._execution.single(self._caller, Operation(body, target), self._hooks))

    def bulk(self, items: Sequence[object]) -> Response:
        """Carry out the operations of a bulk request."""
        return json_response(self._execution.bulk(self._caller, items, self._hooks))


async def _writer(request: Request, services: TheServices, caller: Caller) -> _Writer:
    return _Writer(services.execution, caller, operation_hooks(request.scope))


Writer = Annotated[_Writer, Depends(_writer)]
"""Carries out the operations of the request."""

Id = Annotated[Pfid, Path()]
"""The id in a path."""
