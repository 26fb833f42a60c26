"""How often a suspect message was begun alone without an end, counted where a crash cannot reach.

The broker's own count of deliveries rises for everything that an owner holds when it crashes; it tells who
is suspect, and cannot tell who is guilty. So each begin of a suspect puts one small record, with what the
message is known by, into a queue of the partition's own. One suspect is begun at a time, so records of others
are of messages that are settled: they mean nothing any more, and go with the last suspect.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from pamqp import commands

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.inbox import Receipt
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.memory import Memory
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import Topology, quorum

MOST_TRIALS: Final = 3
_EXPIRES: Final = 24 * 60 * 60 * 1000
"""Milliseconds after which the broker removes records that nobody has touched."""
_STALE: Final = 100
"""Records of settled messages that are left to lie before they are swept."""


class Trials:
    """The trials of one ownership.

    Args:
        number: The partition.
        topology: The names.
        link: For declaring, reading and sweeping.
        outlet: For publishing the records.
        memory: What this process has begun, and obviously survived.
    """

    def __init__(self, number: int, topology: Topology, link: Link, outlet: Outlet, memory: Memory) -> None:
        self._queue = topology.names.trials(number)
        self._link = link
        self._outlet = outlet
        self._memory = memory
        self._begun: Counter[str] | None = None  # what was found, once it was looked for
        self._open: str | None = None
        self._written = 0

    async def begin(self, fingerprint: str) -> bool:
        """Record a begin, unless there were too many.

        Raises:
            BrokerError: It could not be recorded.
        """
        begun = await self._look()
        if await self.attempts(fingerprint) >= MOST_TRIALS:
            return False
        if self._written >= _STALE:
            await self._rewrite(fingerprint, begun[fingerprint])
        await self._outlet.publish([Outgoing("", self._queue, fingerprint.encode())])
        begun[fingerprint] += 1
        self._written += 1
        self._open = fingerprint
        self._memory.try_alone(fingerprint)
        return True

    async def attempts(self, fingerprint: str) -> int:
        """Return how often a message was begun by owners that crashed.

        Raises:
            BrokerError: It could not be read.
        """
        begun = await self._look()
        return max(0, begun[fingerprint] - self._memory.survived_trials(fingerprint))

    async def end(self, receipts: Iterable[Receipt], *, more: bool) -> None:
        """Note that messages are settled; remove all records when no suspect is left. Else they expire."""
        suspects = [receipt.fingerprint for receipt in receipts if receipt.suspect]
        if self._open in suspects:
            self._open = None
        if suspects and not more:
            with suppress(BrokerError):
                async with self._link.bounded("removing trials"), self._link.brief_channel() as channel:
                    await channel.queue_delete(self._queue)
            self._begun = None

    async def withdraw(self) -> None:
        """Take back this process's own records: it gives the message back unharmed."""
        fingerprint, self._open = self._open, None
        if fingerprint is None or self._begun is None:
            return
        foreign = max(0, self._begun[fingerprint] - self._memory.survived_trials(fingerprint))
        with suppress(BrokerError):
            if foreign:
                await self._rewrite(fingerprint, foreign)
            else:
                async with self._link.bounded("withdrawing trials"), self._link.brief_channel() as channel:
                    await channel.queue_delete(self._queue)
            self._memory.withdraw_trials(fingerprint)

    async def _look(self) -> Counter[str]:
        if self._begun is None:
            self._begun = await self._read()
            self._written = self._begun.total()
        return self._begun

    async def _read(self) -> Counter[str]:
        """Return how often each message was begun; what is read goes back as the channel closes."""
        found: Counter[str] = Counter()
        async with self._link.bounded("reading trials"), self._link.brief_channel() as channel:
            await channel.queue_declare(
                self._queue, durable=True, arguments=quorum(self._link, {"x-expires": _EXPIRES})
            )
            while True:
                message = await channel.basic_get(self._queue)
                if isinstance(message.delivery, commands.Basic.GetEmpty):
                    return found
                found[message.body.decode("ascii", "replace")] += 1

    async def _rewrite(self, fingerprint: str, times: int) -> None:
        """Keep nothing but so many records of one message. A crash in between forgets those, no more."""
        async with self._link.bounded("sweeping trials"), self._link.brief_channel() as channel:
            await channel.queue_purge(self._queue)
        if times:
            await self._outlet.publish([Outgoing("", self._queue, fingerprint.encode())] * times)
        self._written = times
