"""Running the active faults around the application."""

from collections.abc import Sequence
from random import Random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefactor_emulator.faults.fault import Exchange, Fault, OperationFault, RequestFault
from prefactor_emulator.faults.kinds import parse_fault
from prefactor_emulator.faults.subjects import Subject, subject_of, subjects_of_request
from prefactor_emulator.http.hooks import with_hooks
from prefactor_emulator.http.paths import API_PREFIX, MAX_BODY_BYTES
from prefactor_emulator.operations import FindInstance, Operation, OperationHook
from prefactor_emulator.storage.store import Store


class Gate:
    """Lets a fault through as often as it is to hit.

    Args:
        fault: The fault.
        seed: Where its chance begins.
    """

    def __init__(self, fault: Fault, seed: str) -> None:
        self._fault = fault
        self._seed = seed
        self._names: set[str] = set()
        self.dice = Random(seed)  # noqa: S311 - chance for tests, not for secrets
        self.hits = 0

    def opens(self) -> bool:
        """Roll the dice for one request."""
        return self._roll(self.dice)

    def opens_for(self, name: str) -> bool:
        """Choose by name rather than by chance, so that every repeat meets the same fate.

        A name that was hit once is hit for good, and is counted once.
        """
        if name not in self._names and self._roll(Random(f"{self._seed}/{name}")):  # noqa: S311 - as above
            self._names.add(name)
        return name in self._names

    def _roll(self, dice: Random) -> bool:
        spent = self._fault.count is not None and self.hits >= self._fault.count
        if spent or dice.random() >= self._fault.rate:
            return False
        self.hits += 1
        return True


class FaultMiddleware:
    """Lets requests run into the active faults, in the order in which they were given.

    Args:
        app: The application that behaves.
        store: What is behind it.
    """

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store
        self._active: list[tuple[Fault, Gate]] = []
        self.specs: list[str] = []
        self.seed = 0

    @property
    def hits(self) -> list[int]:
        """How often each active fault has hit so far."""
        return [gate.hits for _, gate in self._active]

    def activate(self, specs: Sequence[str], seed: int) -> None:
        """Replace the active faults.

        Raises:
            FaultSpecError: One is described wrongly; those active before stay.
        """
        described = [(spec, parse_fault(spec)) for spec in specs]
        # Chance of its own makes what a fault does independent of which others are active.
        self._active = [
            (fault, Gate(fault, f"{seed if fault.seed is None else fault.seed}/{spec}"))
            for spec, fault in described
        ]
        self.specs = list(specs)
        self.seed = seed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        proceed = self._app
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX + "/"):
            active = [(fault, gate) for fault, gate in self._active if fault.reaches(scope)]
            hooks = [self._hook(fault, gate) for fault, gate in active if isinstance(fault, OperationFault)]
            around = [(fault, gate) for fault, gate in active if isinstance(fault, RequestFault)]
            scope = with_hooks(scope, hooks)
            subjects: list[Subject] = []
            if any(fault.narrowed for fault, _ in around):
                body, receive = await _read_ahead(receive)
                subjects = subjects_of_request(scope["path"], body, self._store.span)
            for fault, gate in reversed(around):
                if not fault.narrowed or any(map(fault.covers, subjects)):
                    proceed = self._behind(fault, gate, proceed)
        await proceed(scope, receive, send)

    def _behind(self, fault: RequestFault, gate: Gate, proceed: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if gate.opens():
                await fault.act(Exchange(scope, receive, send, gate.dice, proceed, self._store))
            else:
                await proceed(scope, receive, send)

        return handle

    def _hook(self, fault: OperationFault, gate: Gate) -> OperationHook:
        def before_each(operation: Operation, find_instance: FindInstance) -> None:
            subject = subject_of(operation, self._store.span)
            name = fault.name_of(operation, subject, find_instance(subject.instance_id or ""))
            if name is not None and fault.covers(subject) and gate.opens_for(name):
                fault.strike(subject, self._store)

        return before_each


async def _read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """Read a body before the application does, and make the channel from which it can do so again.

    A body too large to be accepted is not read to its end.
    """
    messages: list[Message] = []
    body = bytearray()
    more = True
    while more and len(body) <= MAX_BODY_BYTES:
        messages.append(await receive())
        body += messages[-1].get("body", b"")
        more = messages[-1].get("more_body", False)

    async def receive_again() -> Message:
        return messages.pop(0) if messages else await receive()

    return bytes(body), receive_again
