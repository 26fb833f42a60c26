"""Running the active faults around the application."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefactor_emulator.faults.aim import Aim, Gate
from prefactor_emulator.faults.fault import (
    Exchange,
    Fault,
    FaultKinds,
    OperationFault,
    Proceed,
    RequestFault,
    Service,
    parse_fault,
)
from prefactor_emulator.faults.hooks import with_hook
from prefactor_emulator.faults.subjects import Subject, subject_of, subjects_of_request
from prefactor_emulator.http.paths import API_PREFIX, MAX_BODY_BYTES
from prefactor_emulator.operations import Operation


@dataclass(frozen=True, slots=True)
class _Active:
    fault: Fault
    aim: Aim
    gate: Gate


class FaultMiddleware:
    """Lets requests run into the active faults, in the order in which they were given.

    Args:
        app: The application that behaves.
        service: What is behind it.
        kinds: The faults that can be had, by name.
    """

    def __init__(self, app: ASGIApp, service: Service, kinds: FaultKinds) -> None:
        self._app = app
        self._service = service
        self._kinds = kinds
        self._active: list[_Active] = []
        self.specs: list[str] = []
        self.seed = 0

    @property
    def hits(self) -> list[int]:
        """How often each active fault has hit so far."""
        return [active.gate.hits for active in self._active]

    def activate(self, specs: Sequence[str], seed: int) -> None:
        """Replace the active faults.

        Raises:
            FaultSpecError: One is described wrongly; those active before stay.
        """
        described = [(spec, *parse_fault(spec, self._kinds)) for spec in specs]
        # Chance of its own makes what a fault does independent of which others are active.
        self._active = [
            _Active(fault, aim, Gate(aim, f"{seed if aim.seed is None else aim.seed}/{spec}"))
            for spec, fault, aim in described
        ]
        self.specs = list(specs)
        self.seed = seed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        active: list[_Active] = []
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX + "/"):
            active = [candidate for candidate in self._active if candidate.fault.reach.includes(scope)]
        subjects: list[Subject] = []
        if any(each.aim.narrowed and isinstance(each.fault, RequestFault) for each in active):
            body, receive = await _read_ahead(receive)
            subjects = subjects_of_request(scope["path"], body, self._service.span)
        proceed: Proceed = self._app
        for each in reversed(active):
            proceed = self._behind(each, subjects, proceed)
        await proceed(scope, receive, send)

    def _behind(self, active: _Active, subjects: Sequence[Subject], proceed: Proceed) -> Proceed:
        if isinstance(active.fault, OperationFault):
            return self._per_operation(active.fault, active, proceed)
        return self._per_request(active.fault, active, subjects, proceed)

    def _per_request(
        self, fault: RequestFault, active: _Active, subjects: Sequence[Subject], proceed: Proceed
    ) -> Proceed:
        aim, gate = active.aim, active.gate
        aimed_at = not aim.narrowed or any(map(aim.covers, subjects))

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if aimed_at and gate.opens():
                await fault.act(Exchange(scope, receive, send, gate.dice, proceed, self._service))
            else:
                await proceed(scope, receive, send)

        return handle

    def _per_operation(self, fault: OperationFault, active: _Active, proceed: Proceed) -> Proceed:
        def before_each(operation: Operation) -> None:
            subject = subject_of(operation, self._service.span)
            name = fault.name_of(operation, subject)
            if name is not None and active.aim.covers(subject) and active.gate.opens_for(name):
                fault.strike(operation, subject, self._service)

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await proceed(with_hook(scope, before_each), receive, send)

        return handle


async def _read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """Read a body before the application does, and make the channel from which it can do so again.

    A body too large to be accepted is not read to its end.
    """
    read: list[Message] = []
    body = bytearray()
    more = True
    while more and len(body) <= MAX_BODY_BYTES:
        message = await receive()
        read.append(message)
        body += message.get("body", b"")
        more = message.get("more_body", False)
    again = iter(read)

    async def receive_again() -> Message:
        message = next(again, None)
        return await receive() if message is None else message

    return bytes(body), receive_again
