"""Misbehaving on purpose: what a fault is."""

from abc import abstractmethod
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from prefactor_emulator.faults.subjects import Subject
from prefactor_emulator.model import OperationType
from prefactor_emulator.operations import Operation
from prefactor_emulator.requests import Pfid
from prefactor_emulator.storage.records import InstanceRecord
from prefactor_emulator.storage.store import Store

AIM_HELP: Final = (
    "Every fault also takes rate=0..1 (a share; default 1), count=N (no more hits than that), seed=N,"
    " and, to spare all other operations, type=_TYPE, schema=SPAN_SCHEMA, instance=ID."
)


def number(most: float) -> Any:
    """Describe an option that is a number from 0."""
    return Field(ge=0, le=most, allow_inf_nan=False, description=f"a number from 0 to {most:g}")


def whole(least: int, most: int) -> Any:
    """Describe an option that is a whole number."""
    return Field(ge=least, le=most, description=f"a whole number from {least} to {most}")


ErrorStatus: TypeAlias = Annotated[int, whole(400, 599)]
Milliseconds: TypeAlias = Annotated[float, number(1e9)]


class Fault(BaseModel):
    """One way to misbehave. Each field is an option, and its description says what it must be.

    These are the options of every fault. Those that only one has are fields of its class.

    Attributes:
        hits_reads: Whether it hits reads too.
        rate: The share of what could be hit.
        count: How many hits there are before it stops. None: it never stops.
        type: The only type of operation to hit, if any.
        schema_name: The only span schema to hit, if any.
        instance: The only instance to hit, if any.
        seed: The seed of this fault alone, in place of the common one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    hits_reads: ClassVar[bool] = False

    rate: Annotated[float, number(1)] = 1
    count: Annotated[int | None, whole(1, 10**9)] = None
    type: Annotated[OperationType | None, Field(description=f"one of {', '.join(OperationType)}")] = None
    schema_name: str | None = Field(None, alias="schema", min_length=1, description="the name of a schema")
    instance: Annotated[Pfid | None, Field(description="a PFID: 32 characters of lower-case base32")] = None
    seed: Annotated[int | None, whole(0, 2**63)] = None

    def reaches(self, scope: Scope) -> bool:
        """Tell whether it could hit a request at all."""
        return self.hits_reads or scope["method"] not in {"GET", "HEAD", "OPTIONS"}

    @property
    def narrowed(self) -> bool:
        """Whether it depends on what an operation is about."""
        return bool(self.type or self.schema_name or self.instance)

    def covers(self, subject: Subject) -> bool:
        """Tell whether an operation about this is one to hit."""
        return (
            self.type in {None, subject.type}
            and self.schema_name in {None, subject.schema_name}
            and self.instance in {None, subject.instance_id}
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that a fault hits. The fault answers it, or lets it proceed, or both in its way.

    Attributes:
        scope: The request's ASGI scope.
        receive: Its channel from the client.
        send: Its channel to the client.
        dice: This fault's own source of chance.
        proceed: What would have handled the request without the fault.
        store: What is behind the API.
    """

    scope: Scope
    receive: Receive
    send: Send
    dice: Random
    proceed: ASGIApp
    store: Store

    async def forward(self) -> None:
        """Let the request take its ordinary way."""
        await self.proceed(self.scope, self.receive, self.send)


class RequestFault(Fault):
    """A fault that hits requests as a whole, by chance."""

    @abstractmethod
    async def act(self, exchange: Exchange) -> None:
        """Handle a request that is hit."""


class OperationFault(Fault):
    """A fault that hits single operations, alone or in a bulk request, by name."""

    @abstractmethod
    def name_of(self, operation: Operation, subject: Subject, instance: InstanceRecord | None) -> str | None:
        """Tell by which name to choose, or that this is not an operation to hit.

        Args:
            operation: The operation.
            subject: What it is about.
            instance: The instance that it is about, if its token may touch that.
        """

    @abstractmethod
    def strike(self, subject: Subject, store: Store) -> None:
        """Stand in the way of an operation that is hit, by raising a refusal, or do something before it."""
