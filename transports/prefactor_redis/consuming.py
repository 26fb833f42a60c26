"""The end that workers consume through."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from prefactor_core.broker.driver import ConsumingEnd, Fleet, Partition, PartitionState
from prefactor_core.exceptions import BrokerError
from prefactor_redis.answers import send
from prefactor_redis.checks import losses
from prefactor_redis.fleet import Membership
from prefactor_redis.keys import Keys
from prefactor_redis.lease import SAFE_PART, Keeper
from prefactor_redis.lease_scripts import ACQUIRE, CRASHES
from prefactor_redis.links import Links
from prefactor_redis.partition import Ownership, RedisPartition
from prefactor_redis.partition_count import agreed_partitions, recorded_partitions
from prefactor_redis.presence import Presence
from prefactor_redis.reading import Cursor
from prefactor_redis.replies import Reply, integer, items, maybe_data, text
from prefactor_redis.scripts import STATE
from prefactor_redis.servers import servers_of
from prefactor_redis.stream_ids import seconds
from prefactor_redis.target import Target
from prefactor_redis.unreleased import Unreleased, release

T = TypeVar("T")

logger = logging.getLogger("prefactor_redis")

_CONNECTIONS: Final = 4
_BLOCK_SECONDS: Final = 2.0
_LEAVING_SECONDS: Final = 3.0
_SIGN_SECONDS: Final = 5.0
"""Without a sign of a server that should know that this process lives. Less for short leases."""


class RedisConsumingEnd(ConsumingEnd):
    """Consumes from Redis.

    Args:
        target: What to connect to.
        name: What logs call the broker.
        clock: Seconds that only grow.
    """

    def __init__(self, target: Target, name: str, clock: Callable[[], float]) -> None:
        options = target.options
        self._options = options
        self._name = name
        self._clock = clock
        self._keys = Keys(options.prefix)
        servers = servers_of(target)
        self._links = Links(servers, target.access, size=_CONNECTIONS, patience=options.timeout)
        self._keeper = Keeper(
            Links(servers, target.access, size=1, patience=min(options.timeout, options.lease / 4)),
            options.lease,
        )
        # A reader must see that it is not the owner any more before anybody else can be.
        self._block = min(_BLOCK_SECONDS, options.lease * (1 - SAFE_PART) / 2)
        member = secrets.token_hex(16)
        self._membership = Membership(self._links, self._keys, member, options.lease)
        self._channel = self._keys.alive(member)
        self._presence = Presence(
            self._links, self._channel, min(_SIGN_SECONDS, options.lease / 2), options.timeout
        )
        self._unreleased = Unreleased(self._links)
        self._partitions: int | None = None
        self._warned = False
        self._asked: dict[int, bytes] = {}
        self._owned: set[RedisPartition] = set()

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the one in the URL; warn once of bad settings.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """
        self._partitions = await agreed_partitions(self._links, self._keys, self._options.partitions)
        if not self._warned:
            problems = await losses(self._links)
            self._warned = True
            for problem in problems:
                logger.warning("%s", problem)
        return self._partitions

    async def fleet(self) -> Fleet:
        """Say that this consumer is there, for as long as a lease lasts, and count those that did.

        Raises:
            BrokerError: The broker is unavailable.
        """
        fleet = await self._membership.join(self._partitions)
        await self._catch_up()
        return fleet

    async def stand_aside(self) -> None:
        """Say that this consumer stands aside, for as long as a lease lasts.

        Raises:
            BrokerError: The broker is unavailable.
        """
        await self._membership.stand_aside()
        await self._catch_up()

    async def standing_aside(self) -> int:
        """Count those that stand aside.

        Raises:
            BrokerError: The broker is unavailable.
        """
        return await self._membership.standing_aside()

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Add answers to the list of a reader that has opened one, as long as that is not full.

        Raises:
            BrokerError: They may not have arrived.
        """
        await send(self._links, self._keys, address, answers)

    async def acquire(self, partition: int, max_items: int) -> Partition | None:  # noqa: ARG002 -- reads say it
        """Take the partition's lease, unless there is one.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """
        keys = self._keys.of(partition)
        # After an answer that did not come the same token is used again, and what it got is found.
        token = self._asked.setdefault(partition, secrets.token_hex(16).encode())
        link = await self._links.of(keys.lease)
        # Only who is known to live there can be told from the dead: without it an innocent owner is blamed.
        channel = self._channel if await self._presence.ensure(link.address) else ""
        name = f"{socket.gethostname()}:{os.getpid()}"
        asked_at = self._clock()
        args = (token, int(self._options.lease * 1_000), name, channel, CRASHES)
        taken, *state = items(await link.run(ACQUIRE, keys.owned, args))
        del self._asked[partition]
        if not integer(taken):
            return None
        seen, isolated_until = map(maybe_data, state)
        owned = RedisPartition(
            partition,
            f"{self._name} partition {partition}",
            keys,
            self._links,
            Cursor(keys.operations, self._links, self._block, self._options.timeout),
            Ownership(token, self._options.lease, seen, isolated_until is not None),
            asked_at,
            self._clock,
            self._unreleased,
            self._owned.discard,
        )
        if isolated_until is not None:
            logger.warning(
                "%s partition %d: %d owners crashed at the same place; it is handled one operation at a time",
                self._name,
                partition,
                CRASHES,
            )
        self._owned.add(owned)
        self._keeper.keep(owned)
        return owned

    async def waiting(self) -> int:
        """Return the length of all streams: settled means deleted.

        Raises:
            BrokerError: The broker is unavailable.
        """
        keys = await self._recorded(lambda one: self._keys.of(one).operations)
        total = 0
        for link, numbers in (await self._links.grouped(keys.items())).items():
            commands = [("XLEN", keys[number]) for number in numbers]
            total += sum(map(integer, await link.call_each(commands)))
        return total

    async def states(self) -> list[PartitionState]:
        """Return every partition's state; none where nobody has published yet.

        Raises:
            BrokerError: The broker is unavailable.
        """
        keys = await self._recorded(self._keys.of)
        groups = await self._links.grouped((number, one.operations) for number, one in keys.items())
        found: dict[int, PartitionState] = {}
        for link, numbers in groups.items():
            own = [keys[number] for number in numbers]
            calls = [((one.lease, one.operations, one.owner, one.dead), ()) for one in own]
            replies = await link.run_each(STATE, calls)
            found |= {number: _state(number, reply) for number, reply in zip(numbers, replies, strict=True)}
        return [found[number] for number in sorted(found)]

    async def disconnect(self) -> None:
        """Give up what is owned, leave the fleet, and close all connections."""
        try:
            await self._keeper.close()
            async with asyncio.timeout(_LEAVING_SECONDS), asyncio.TaskGroup() as together:
                for partition in tuple(self._owned):
                    together.create_task(partition.release())
                for number, token in self._asked.items():
                    together.create_task(self._release(number, token))
                together.create_task(self._unreleased.tell(_LEAVING_SECONDS))
                together.create_task(self._membership.leave())
        except TimeoutError:
            logger.debug("%s did not answer at the end; what is held runs out", self._name)
        finally:
            await self._presence.close()
            await self._links.close()

    async def _catch_up(self) -> None:
        """Tell what could not be told when it happened."""
        for partition in self._owned:
            if not partition.held:
                self._unreleased.add(partition.keys, partition.token)
        # Whoever waits for this has to be back before the fleet forgets this consumer.
        seconds = min(self._options.timeout, self._options.lease / 4)
        await asyncio.gather(self._unreleased.tell(seconds), self._be_present(seconds))

    async def _be_present(self, seconds: float) -> None:
        """Be subscribed where partitions are now: a lease can outlive the server that gave it."""
        held = [partition for partition in self._owned if partition.held]
        try:
            async with asyncio.timeout(seconds):
                groups = await self._links.grouped((one.number, one.lease_key) for one in held)
                for link in groups:
                    await self._presence.ensure(link.address)
        except (BrokerError, TimeoutError) as error:
            logger.debug("%s: not all servers can see that this worker lives: %s", self._name, error)

    async def _recorded(self, keys_of: Callable[[int], T]) -> dict[int, T]:
        count = await recorded_partitions(self._links, self._keys) or 0
        return {number: keys_of(number) for number in range(count)}

    async def _release(self, partition: int, token: bytes) -> None:
        try:
            await release(self._links, self._keys.of(partition), token)
        except BrokerError as error:
            logger.debug("%s partition %d was not released: %s", self._name, partition, error)


def _state(number: int, reply: Reply) -> PartitionState:
    waiting, dead, owner, first = items(reply)
    oldest = maybe_data(first)
    return PartitionState(
        number,
        integer(waiting),
        integer(dead),
        None if owner is None else text(owner),
        None if oldest is None else seconds(oldest),
    )
