"""Isolation: operations of isolated partitions are handled one at a time, and every attempt is recorded.

A crash counts against every operation in flight. Operations that no crash counts against may be in flight
together, one a partition. One that an owner crashed with is handled alone, so that the next crash counts
against the poison operation only.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from prefactor_core.broker.driver import Message
from prefactor_core.broker.prefetch import OwnedPartition
from prefactor_core.outage import Outage

if TYPE_CHECKING:
    from prefactor_core.operations import Operation
    from prefactor_core.queue.base import Delivery

_LOOK: Final = 0.02
"""Seconds between two looks at whether other operations have ended."""


class IsolatedAttempt:
    """This process's attempt at one message; an ``Attempt`` of its delivery."""

    def __init__(
        self, isolation: "Isolation", owned: OwnedPartition, message: Message, *, alone: bool
    ) -> None:
        self.owned = owned
        self.alone = alone
        """Whether no other may be in flight beside it."""
        self.delivery: Delivery[Operation] | None = None
        """Its delivery, once that can be received."""
        self._isolation = isolation
        self._message = message
        self._recorded = True
        self._lock = asyncio.Lock()

    @property
    def over(self) -> bool:
        """Whether it was disposed of, or is another process's."""
        if self.delivery is None:
            return False
        return self.delivery.receipt is not self._message or not self.owned.current

    async def withdraw(self) -> None:
        """Take back what was recorded, and let others begin."""
        async with self._lock:
            self._isolation.end(self)
            if not self._recorded or not self.owned.current:
                return
            # If that fails the attempt may stand; begun again it is the same one. The partition's next owner
            # takes it back.
            self._recorded = False
            try:
                await self.owned.partition.withdraw(self._message)
            except Exception as error:  # noqa: BLE001 -- told
                # Also what is no BrokerError: the driver is somebody else's code.
                self._isolation.outage.failed(self, error)
                self._isolation.outage.worked(self)  # it is not retried

    async def begin(self) -> bool:
        """Record it again; ``False`` while others have to end first, or the broker is unavailable."""
        async with self._lock:
            if not self.owned.current or not self._isolation.try_start(self):
                return False
            if self._recorded:
                return True
            try:
                await self.owned.partition.begin(self._message)
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also what is no BrokerError: the driver is somebody else's code, and a crash now would not
                # be counted.
                if self.owned.current:  # else it is the next owner's
                    self._isolation.outage.failed(self.owned.partition, error)
            else:
                self._isolation.outage.worked(self.owned.partition)
                self._recorded = True
                return True
            self._isolation.end(self)
            return False


class Isolation:
    """All operations of one process that are handled in isolation."""

    def __init__(self, outage: Outage) -> None:
        self.outage = outage
        self._in_flight: list[IsolatedAttempt] = []
        self._waiting_alone: set[IsolatedAttempt] = set()

    async def start(self, owned: OwnedPartition, message: Message, *, alone: bool) -> IsolatedAttempt:
        """Wait until an operation may be begun; return its attempt, to be recorded by the caller.

        The wait ends, too, if the partition is lost. ``alone`` says that an owner crashed with the message.
        """
        attempt = IsolatedAttempt(self, owned, message, alone=alone)
        try:
            # Many partitions' states are looked at, each of which may change: no event stands for all.
            while owned.current and not self.try_start(attempt):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
        finally:
            self._waiting_alone.discard(attempt)
        return attempt

    def try_start(self, attempt: IsolatedAttempt) -> bool:
        """Count an attempt as in flight, unless it has to wait for others."""
        if attempt in self._in_flight:
            return True
        self._in_flight = [one for one in self._in_flight if not one.over]
        self._waiting_alone = {one for one in self._waiting_alone if not one.over}
        if attempt.alone and self._in_flight:
            self._waiting_alone.add(attempt)
            return False
        if not attempt.alone and (self._waiting_alone or any(one.alone for one in self._in_flight)):
            return False
        self._waiting_alone.discard(attempt)
        self._in_flight.append(attempt)
        return True

    def end(self, attempt: IsolatedAttempt) -> None:
        """Count an attempt as in flight no longer."""
        self._waiting_alone.discard(attempt)
        if attempt in self._in_flight:
            self._in_flight.remove(attempt)
