"""Misbehaving on purpose: what a fault is, and how its description is read."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import ClassVar, Protocol, Self, TypeAlias

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from prefactor_emulator.faults.aim import Aim
from prefactor_emulator.faults.options import FaultSpecError, Options
from prefactor_emulator.faults.subjects import Subject
from prefactor_emulator.http.paths import BULK_PATH
from prefactor_emulator.model import JsonObject
from prefactor_emulator.operations import Operation
from prefactor_emulator.storage.records import SpanRecord

Proceed: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Service(Protocol):
    """What only the service's side can do and know."""

    def forget_keys(self) -> None:
        """Let every idempotency key expire."""

    def terminate_instance(self, instance_id: str, reason: str | None, now: str) -> bool:
        """End an instance, and tell whether it was not over yet."""

    def span(self, span_id: str) -> SpanRecord | None:
        """Find a span, whoever owns it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that a fault hits. The fault answers it, or lets it proceed, or both in its way.

    Attributes:
        scope: The request's ASGI scope.
        receive: Its channel from the client.
        send: Its channel to the client.
        dice: This fault's own source of chance.
        proceed: What would have handled the request without the fault.
        service: What is behind the API.
    """

    scope: Scope
    receive: Receive
    send: Send
    dice: Random
    proceed: Proceed
    service: Service

    async def forward(self) -> None:
        """Let the request take its ordinary way."""
        await self.proceed(self.scope, self.receive, self.send)

    async def reply(
        self, status: int, body: JsonObject | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer in the application's place, with JSON unless the headers say otherwise."""
        content = body if isinstance(body, bytes) else to_json(body)
        named = {"content-type": "application/json", **(headers or {})}
        named["content-length"] = str(len(content))
        raw = [(name.encode(), value.encode()) for name, value in named.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": content})


class Reach(Enum):
    """Which requests a fault could hit at all."""

    ALL = "all"
    WRITES = "writes"
    BULK = "bulk"

    def includes(self, scope: Scope) -> bool:
        """Tell whether a request is within reach."""
        if self is Reach.ALL:
            return True
        if self is Reach.BULK:
            return bool(scope["path"] == BULK_PATH)
        return scope["method"] not in {"GET", "HEAD", "OPTIONS"}


class _Fault(ABC):
    """One way to misbehave."""

    name: ClassVar[str]
    reach: ClassVar[Reach] = Reach.WRITES

    @classmethod
    @abstractmethod
    def from_options(cls, options: Options) -> Self:
        """Build the fault from the options that only it has."""


class RequestFault(_Fault):
    """A fault that hits requests as a whole, by chance."""

    @abstractmethod
    async def act(self, exchange: Exchange) -> None:
        """Handle a request that is hit."""


class OperationFault(_Fault):
    """A fault that hits single operations, alone or in a bulk request, by name."""

    @abstractmethod
    def name_of(self, operation: Operation, subject: Subject) -> str | None:
        """Tell by which name to choose, or that this is not an operation to hit."""

    @abstractmethod
    def strike(self, operation: Operation, subject: Subject, service: Service) -> None:
        """Stand in the way of an operation that is hit, by raising a refusal, or do something before it."""


Fault: TypeAlias = RequestFault | OperationFault
FaultKinds: TypeAlias = Mapping[str, type[RequestFault] | type[OperationFault]]


def parse_fault(spec: str, kinds: FaultKinds) -> tuple[Fault, Aim]:
    """Read a description like `throttle:rate=0.05,retry_after=1`.

    Raises:
        FaultSpecError: There is no such fault, or its options are wrong.
    """
    name, _, text = spec.partition(":")
    kind = kinds.get(name)
    if kind is None:
        raise FaultSpecError(f"{spec!r}: there is no fault {name!r}; there are {', '.join(kinds)}")
    try:
        options = Options(text)
        fault = kind.from_options(options)
        aim = Aim.from_options(options)
        options.refuse_others(name)
    except FaultSpecError as error:
        raise FaultSpecError(f"{spec!r}: {error}") from None
    return fault, aim
