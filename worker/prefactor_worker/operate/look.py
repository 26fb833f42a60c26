"""One look at a fleet: every partition, and how many dead letters there are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prefactor_core.broker.driver import Broker, PartitionState


@dataclass(frozen=True, slots=True)
class Row:
    """A partition, and what has changed since the look before.

    Attributes:
        state: What the broker says.
        age: Seconds since its oldest unsettled operation was published, where the broker can tell.
        change: By how much ``backlog`` has changed a second; ``None`` at the first look.
    """

    state: PartitionState
    age: float | None
    change: float | None

    @property
    def owned(self) -> bool:
        """Whether some worker owns it."""
        return self.state.owner is not None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one time."""

    at: datetime
    rows: Sequence[Row]
    """The partitions; none if nobody has used the broker yet."""
    dead: int
    """All dead letters."""
    aside: int = 0
    """Workers that stand aside because the API refuses their token."""

    @property
    def backlog(self) -> int:
        """Operations at the broker that are not settled, in all partitions."""
        return sum(row.state.backlog for row in self.rows)

    @property
    def oldest(self) -> float | None:
        """Age of the oldest of all, where the broker can tell."""
        return max((row.age for row in self.rows if row.age is not None), default=None)

    @property
    def change(self) -> float | None:
        """By how much ``backlog`` has changed a second, in all."""
        changes = [row.change for row in self.rows if row.change is not None]
        return sum(changes) if changes else None

    @property
    def owned(self) -> int:
        """How many partitions some worker owns."""
        return sum(row.owned for row in self.rows)

    @property
    def workers(self) -> int | None:
        """How many workers own partitions, where the broker can tell one from another."""
        names = {row.state.owner for row in self.rows if row.owned}
        return None if "" in names else len(names)

    @property
    def partly_known(self) -> bool:
        """Whether the broker tells only part of a partition's state."""
        return any(row.state.dead is None for row in self.rows)


class FleetReader:
    """Looks at the fleet of a broker again and again; ``aclose`` it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._end = broker.consuming()
        self._backlogs: dict[int, int] = {}
        self._looked_at = 0.0

    async def look(self) -> Look:
        """Look once.

        Raises:
            BrokerError: The broker is unavailable.
        """
        states = await self._end.states()
        aside = await self._end.standing_aside()
        now, at = time.monotonic(), datetime.now(UTC)
        rows = [self._row(state, at.timestamp(), now - self._looked_at) for state in states]
        self._backlogs = {state.number: state.backlog for state in states}
        self._looked_at = now
        return Look(at, rows, await self._count(states), aside)

    async def aclose(self) -> None:
        """Disconnect from the broker."""
        await self._end.disconnect()

    def _row(self, state: PartitionState, at: float, since: float) -> Row:
        age = None if state.oldest is None else max(0.0, at - state.oldest)
        before = self._backlogs.get(state.number)
        return Row(state, age, None if before is None else (state.backlog - before) / since)

    async def _count(self, states: Sequence[PartitionState]) -> int:
        known = [state.dead for state in states if state.dead is not None]
        if len(known) == len(states):
            return sum(known)
        async with self._broker.dead_letters() as end:
            return await end.count()
