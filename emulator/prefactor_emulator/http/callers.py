"""What the routes of the API are given: who asks, and the rules that judge what is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

from fastapi import Depends, Path, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from prefactor_emulator.faults.middleware import operation_hooks
from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import Identity, OperationType, Refusal
from prefactor_emulator.operations import Operation, OperationHook
from prefactor_emulator.requests import Pfid, Write
from prefactor_emulator.rules.call import Call
from prefactor_emulator.rules.execution import Execution


@dataclass(frozen=True, slots=True)
class Services:
    """What is behind the API, as its application keeps it in `state.services`.

    Attributes:
        accounts: Who may use it.
        execution: Its rules.
    """

    accounts: Accounts
    execution: Execution


def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


async def _identity(
    request: Request,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None, Depends(HTTPBearer(scheme_name="token", auto_error=False))
    ],
) -> Identity:
    return _services(request).accounts.identify(credentials.credentials.strip() if credentials else None)


Caller = Annotated[Identity, Depends(_identity)]
"""Whoever has a token that is accepted."""


async def _reading(request: Request, caller: Caller) -> Call:
    if caller.deployment is not None:
        raise Refusal(401, "unauthorized", "a deployment's token reads nothing and manages no agents")
    return _services(request).execution.call(caller)


Reading = Annotated[Call, Depends(_reading)]
"""The circumstances of a read, by whoever has the token of an account."""


async def _rules(request: Request) -> Execution:
    return _services(request).execution


Rules = Annotated[Execution, Depends(_rules)]
"""The API's rules."""


async def _hooks(request: Request) -> Sequence[OperationHook]:
    return operation_hooks(request.scope)


Hooks = Annotated[Sequence[OperationHook], Depends(_hooks)]
"""What is to be called before each operation of the request."""

_Perform: TypeAlias = Callable[[OperationType, Write, str | None], Response]


async def _performer(caller: Caller, rules: Rules, hooks: Hooks) -> _Perform:
    def perform(operation_type: OperationType, body: Write, target: str | None) -> Response:
        return json_response(rules.single(caller, Operation(operation_type, body, target), hooks))

    return perform


Perform = Annotated[_Perform, Depends(_performer)]
"""Carries out the request's one operation, and returns the response."""

Id = Annotated[Pfid, Path()]
"""The id in a path."""
