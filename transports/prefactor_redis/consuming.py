"""The end that workers consume through."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from prefactor_core.transport import (
    BrokerError,
    ConsumingEnd,
    Fleet,
    Lease,
    Partition,
    PartitionState,
    process_name,
)
from prefactor_redis.checks import losses
from prefactor_redis.dead_letters import send_answers
from prefactor_redis.fleet import ASIDE, JOIN, LEAVE, STAND_ASIDE, agreed_partitions, recorded_keys
from prefactor_redis.keys import Keys
from prefactor_redis.lease_scripts import ACQUIRE, CRASHES
from prefactor_redis.link import BEGINNING, Reply, integer, items, maybe_data, order, text
from prefactor_redis.partition import RedisPartition, Releases
from prefactor_redis.presence import Presence
from prefactor_redis.reading import Cursor
from prefactor_redis.renewal import RENEWALS, LeaseRenewal
from prefactor_redis.scripts import STATE
from prefactor_redis.servers import links_to
from prefactor_redis.target import Target

logger = logging.getLogger("prefactor_redis")

_CONNECTIONS: Final = 4
_BLOCK_SECONDS: Final = 2.0
_CLOSING_SECONDS: Final = 3.0
_SIGN_SECONDS: Final = 5.0
"""Without a sign of a server that should know that this process lives. Less for short leases."""


class RedisConsumingEnd(ConsumingEnd):
    """Consumes from Redis."""

    def __init__(self, target: Target, clock: Callable[[], float]) -> None:
        options = target.options
        self._options = options
        self._name = target.name
        self._clock = clock
        self._keys = Keys(options.prefix)
        self._links = links_to(target, _CONNECTIONS)
        # What is due before the next renewal has to end before that.
        self._patience = min(options.timeout, options.lease / RENEWALS)
        self._renewal = LeaseRenewal(self._links.single(self._patience), options.lease)
        # A reader must see that it is not the owner any more before anybody else can be.
        self._block = min(_BLOCK_SECONDS, options.lease * (1 - Lease.safe_part) / 2)
        self._milliseconds = int(options.lease * 1_000)
        self._member = secrets.token_hex(16)
        self._joined = False
        self._channel = self._keys.alive(self._member)
        sign = min(_SIGN_SECONDS, options.lease / 2)
        self._presence = Presence(self._links, self._channel, sign, options.timeout)
        self._releases = Releases(self._links)
        self._partitions: int | None = None
        self._warned = False
        self._asked: dict[int, bytes] = {}
        self._owned: set[RedisPartition] = set()

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the URL's; warn once of bad settings."""
        self._partitions = await agreed_partitions(self._links, self._keys, self._options.partitions)
        if not self._warned:
            problems = await losses(self._links)
            self._warned = True
            for problem in problems:
                logger.warning("%s", problem)
        return self._partitions

    async def fleet(self) -> Fleet:
        """Say that this consumer is there, for as long as a lease lasts, and count those that did."""
        self._joined = True  # even without an answer
        keys = (self._keys.workers, self._keys.aside, self._keys.partitions)
        args = (self._member, self._milliseconds, self._partitions or "")
        size, rank = items(await self._links.run(JOIN, keys, args))
        await self._catch_up()
        return Fleet(integer(size), integer(rank))

    async def stand_aside(self) -> None:
        """Say that this consumer stands aside, for as long as a lease lasts."""
        self._joined = True
        keys = (self._keys.aside, self._keys.workers)
        await self._links.run(STAND_ASIDE, keys, (self._member, self._milliseconds))
        await self._catch_up()

    async def standing_aside(self) -> int:
        """Count those that stand aside."""
        return integer(await self._links.run(ASIDE, [self._keys.aside]))

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Add answers to the list of a reader that has opened one, as long as that is not full."""
        await send_answers(self._links, self._keys, address, answers)

    async def acquire(self, partition: int, max_items: int) -> Partition | None:  # noqa: ARG002 -- reads say it
        """Take the partition's lease, unless there is one."""
        keys = self._keys.of(partition)
        # After an answer that did not come the same token is used again, and what it got is found.
        token = self._asked.setdefault(partition, secrets.token_hex(16).encode())
        link = await self._links.of(keys.lease)
        # The server tells the living from the dead by it: without it an innocent owner is blamed.
        channel = self._channel if await self._presence.ensure(link.address) else ""
        asked_at = self._clock()
        args = (token, self._milliseconds, process_name(), channel, CRASHES)
        taken, *state = items(await link.run(ACQUIRE, keys.owned, args))
        del self._asked[partition]
        if not integer(taken):
            return None
        seen, isolated_until = map(maybe_data, state)
        name = f"{self._name} partition {partition}"
        owned = RedisPartition(
            number=partition,
            name=name,
            keys=keys,
            token=token,
            lease=Lease(self._options.lease, asked_at, self._clock),
            links=self._links,
            cursor=Cursor(keys.operations, self._links, self._block, self._options.timeout),
            seen=seen or BEGINNING,
            isolating=isolated_until is not None,
            releases=self._releases,
        )
        if owned.isolating:
            crashed = "%s: %d owners crashed at the same place; it is handled one operation at a time"
            logger.warning(crashed, name, CRASHES)
        self._owned.add(owned)
        self._renewal.add(owned)
        return owned

    async def backlog(self) -> int:
        """Return the length of all streams: settled means deleted."""
        return sum(state.backlog for state in await self.states())

    async def states(self) -> list[PartitionState]:
        """Return every partition's state; none where nobody has published yet."""
        keys = await recorded_keys(self._links, self._keys)
        groups = await self._links.grouped(enumerate(keys), lambda pair: pair[1].operations)
        found: list[PartitionState] = []
        for link, pairs in groups.items():
            replies = await link.run_each(STATE, [((*own.owned, own.dead), ()) for _, own in pairs])
            found += [_state(number, reply) for (number, _), reply in zip(pairs, replies, strict=True)]
        return sorted(found, key=lambda state: state.number)

    async def disconnect(self) -> None:
        """Release what is owned, leave the fleet, and close all connections."""
        try:
            await self._renewal.close()
            async with asyncio.timeout(_CLOSING_SECONDS), asyncio.TaskGroup() as together:
                for partition in self._owned:
                    together.create_task(partition.release())
                for number, token in self._asked.items():
                    self._releases.add(self._keys.of(number), token)
                together.create_task(self._releases.catch_up(_CLOSING_SECONDS))
                together.create_task(self._leave())
        except TimeoutError:
            logger.debug("%s did not answer at the end; the leases run out", self._name)
        finally:
            await self._presence.close()
            await self._links.aclose()

    async def _catch_up(self) -> None:
        """Tell what could not be told when it happened."""
        self._owned = {partition for partition in self._owned if not partition.released}
        for partition in self._owned:
            if not partition.held:
                self._releases.add(partition.keys, partition.token)
        # Bounded: the next call has to come before the fleet forgets this worker.
        await asyncio.gather(self._releases.catch_up(self._patience), self._be_present())

    async def _be_present(self) -> None:
        """Be subscribed where partitions are now: a lease can outlive the server that gave it."""
        held = [partition for partition in self._owned if partition.held]
        try:
            async with asyncio.timeout(self._patience):
                for link in await self._links.grouped(held, lambda one: one.keys.lease):
                    await self._presence.ensure(link.address)
        except (BrokerError, TimeoutError) as error:
            logger.debug("%s: not all servers can see that this worker lives: %s", self._name, error)

    async def _leave(self) -> None:
        """Be counted in the fleet no longer; if the broker is unavailable, that expires."""
        if self._joined:
            self._joined = False
            try:
                await self._links.run(LEAVE, (self._keys.workers, self._keys.aside), [self._member])
            except BrokerError as error:
                logger.debug("the fleet was not told of a worker that left: %s", error)


def _state(number: int, reply: Reply) -> PartitionState:
    backlog, dead, owner, first = items(reply)
    oldest = maybe_data(first)
    return PartitionState(
        number,
        integer(backlog),
        integer(dead),
        None if owner is None else text(owner),
        None if oldest is None else order(oldest)[0] / 1_000,
    )
