"""A partition that this process owns: read, settle, and the fence around both."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from prefactor_core.broker.driver import Loss, Message, Partition
from prefactor_core.exceptions import BrokerError
from prefactor_redis.chunks import chunks
from prefactor_redis.isolation import Isolation
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease import Lease, Renewal
from prefactor_redis.links import Links
from prefactor_redis.reading import Cursor, Entry
from prefactor_redis.replies import Reply, Word, data, integer, items
from prefactor_redis.script import Script
from prefactor_redis.scripts import DEAD_LETTER, SEE, SETTLE
from prefactor_redis.stream_ids import BEGINNING, order
from prefactor_redis.unreleased import Unreleased, release

logger = logging.getLogger("prefactor_redis")

_IDS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Ownership:
    """What came of taking a partition over.

    Attributes:
        token: What the owner is told from others by.
        seconds: For how long the lease is given, each time.
        seen: Everything up to this id may have been handled before; ``None`` if nothing was handed out.
        isolated: Whether one operation at a time is to be handled.
    """

    token: bytes
    seconds: float
    seen: bytes | None
    isolated: bool


class RedisPartition(Partition):
    """A partition of Redis.

    Args:
        number: Which one.
        name: What logs call it.
        keys: Its keys.
        links: Connections for all but reading.
        cursor: What reads.
        ownership: What came of taking it over.
        asked_at: When that was asked for.
        clock: Seconds that only grow.
        unreleased: Remembers a release that could not be told.
        on_release: Called once it is given up.
    """

    def __init__(
        self,
        number: int,
        name: str,
        keys: PartitionKeys,
        links: Links,
        cursor: Cursor,
        ownership: Ownership,
        asked_at: float,
        clock: Callable[[], float],
        unreleased: Unreleased,
        on_release: Callable[["RedisPartition"], None],
    ) -> None:
        self.number = number
        self.keys = keys
        self._name = name
        self._links = links
        self._cursor = cursor
        self._token = ownership.token
        self._seconds = ownership.seconds
        self._seen = order(ownership.seen or BEGINNING)
        self._isolated = ownership.isolated
        self._clock = clock
        self._lease = Lease(ownership.seconds, asked_at, clock)
        self._unreleased = unreleased
        self._on_release = on_release
        self._isolation = Isolation(keys, links, self._as_owner)
        self._loss: Loss | None = None
        self._ending = False
        self._released = False

    @property
    def held(self) -> bool:
        """Whether the lease cannot have run out yet; nobody is asked."""
        return self._lease.held

    @property
    def loss(self) -> Loss:
        """Why it is not held any more."""
        return self._loss or Loss("its lease could not be renewed in time")

    @property
    def isolated(self) -> bool:
        """Whether owners crashed here, and what they were handed is not all settled yet."""
        return self._isolated

    @property
    def token(self) -> bytes:
        """What the broker knows this owner by."""
        return self._token

    @property
    def lease_key(self) -> bytes:
        """Where the lease is."""
        return self.keys.lease

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages, once the broker has said after reading them that they are ours to handle.

        Raises:
            BrokerError: The broker is unavailable, or the partition is lost.
        """
        self._require_held()
        if not self._cursor.has_surplus:
            try:
                found = await self._cursor.fetch(max_items, max_bytes)
            except BrokerError as error:
                raise BrokerError(f"{self._name}: {error}") from error
            self._require_held()
            if found:
                await self._accept(found)
        return [
            Message(value, number, redelivered=order(number) <= self._seen)
            for number, value in self._cursor.take(max_items, max_bytes)
        ]

    async def attempts(self, message: Message) -> int:
        """Return how many attempts of earlier owners stand.

        Raises:
            BrokerError: It could not be asked.
        """
        self._require_held()
        return await self._isolation.attempts(_id_of(message))

    async def begin(self, message: Message) -> bool:
        """Record an attempt, while isolated; return whether it is one of the first three.

        Raises:
            BrokerError: It could not be recorded.
        """
        if not self._isolated:
            return True
        self._require_held()
        return await self._isolation.begin(_id_of(message))

    async def withdraw(self, message: Message) -> None:
        """Take this owner's attempt back, if it has not ended.

        Raises:
            BrokerError: It is not known whether that was done; a release does it, too.
        """
        await self._isolation.withdraw(_id_of(message))

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete messages from the stream; return those left because the partition is lost.

        Raises:
            BrokerError: It is not known whether that was done.
        """
        refused = list(messages)
        for chunk in chunks(messages, _IDS_AT_ONCE):
            if not self.held:
                break
            ids = [_id_of(message) for message in chunk]
            reply = await self._fenced(SETTLE, ids)
            if reply is None:
                break
            self._isolation.ended(ids)
            self._stay_isolated(reply[0])
            del refused[: len(chunk)]
        return refused

    async def dead_letter(self, letters: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Move messages to the dead letters, each in one step; return those left as the partition is lost.

        Raises:
            BrokerError: It is not known whether that was done.
        """
        refused = [message for message, _ in letters]
        for chunk in chunks(letters, _IDS_AT_ONCE, lambda letter: len(letter[1])):
            if not self.held:
                break
            args = [word for message, record in chunk for word in (_id_of(message), record)]
            reply = await self._fenced(DEAD_LETTER, args, self.keys.dead)
            if reply is None:
                break
            self._isolation.ended([_id_of(message) for message, _ in chunk])
            self._stay_isolated(reply[0])
            del refused[: len(chunk)]
        return refused

    async def release(self) -> None:
        """End a read under way and give the lease back, and all keys of a partition that is empty."""
        self._lease.end()
        if self._released:
            return
        self._ending = True
        await self._cursor.close()
        try:
            await release(self._links, self.keys, self._token)
        except BrokerError as error:
            logger.debug("%s was not released, and will run out: %s", self._name, error)
            self._unreleased.add(self.keys, self._token)
        self._released = True
        self._on_release(self)

    # -- the lease

    def renewal(self) -> Renewal:
        """Return a renewal to be sent at once."""
        asked_at, position = self._clock(), self._cursor.position

        def take(reply: Reply) -> bool:
            done, last = items(reply)
            if not integer(done):
                self._refused(data(last), position)
                return True  # somebody else's, or nobody's
            if _went_back(data(last), position):
                self._lose_stream()
                return False
            self._lease.renewed(asked_at)
            return True

        return Renewal(self.keys, self._token, int(self._seconds * 1_000), take)

    def expired(self) -> None:
        """Take note that it is held no longer."""
        if not (self._ending or self._loss):
            self._stop()

    async def _fenced(self, script: Script, args: Sequence[Word], *further: bytes) -> list[Reply] | None:
        """Run a script as the owner; ``None`` means that we are not, and that the partition is lost."""
        position = self._cursor.position
        link = await self._links.of(self.keys.operations)
        done, *rest = items(await link.run(script, (*self.keys.owned, *further), (self._token, *args)))
        if integer(done):
            return rest
        self._refused(data(rest[0]), position)
        return None

    async def _as_owner(self, script: Script, args: Sequence[Word]) -> list[Reply]:
        reply = await self._fenced(script, args)
        if reply is None:
            raise self._not_held()
        return reply

    async def _accept(self, found: Sequence[Entry]) -> None:
        # An owner that was frozen inside its read is served before it can know that it owns nothing any more:
        # what it got must not leave this place before the broker has said that it is the owner still.
        await self._as_owner(SEE, (found[-1][0],))
        self._require_held()
        self._cursor.accept(found)

    def _refused(self, last: bytes, position: bytes) -> None:
        if self._loss or self._ending:
            return
        if _went_back(last, position):
            self._lose_stream()
            return
        self._loss = Loss("its lease ran out, and others may own it")
        self._stop()

    def _lose_stream(self) -> None:
        self._loss = Loss(
            "the broker has lost its stream, or a part of it: it was emptied, or a replica took over that "
            "did not have everything. Operations that were published and not settled may be gone; reading "
            "starts again from the first that is there",
            serious=True,
        )
        self._stop()

    def _stop(self) -> None:
        self._lease.end()
        self._cursor.stop()

    def _stay_isolated(self, reply: Reply) -> None:
        if self._isolated and not integer(reply):
            self._isolated = False
            logger.info("%s: what crashed its owners is behind; full speed again", self._name)

    def _require_held(self) -> None:
        if not self.held:
            raise self._not_held()

    def _not_held(self) -> BrokerError:
        return BrokerError(f"{self._name} is not owned by this process any more")


def _id_of(message: Message) -> bytes:
    if not isinstance(message.receipt, bytes):
        raise TypeError("the message is of another broker")
    return message.receipt


def _went_back(last: bytes, position: bytes) -> bool:
    """Whether a stream whose last id is ``last``, empty if there is none, has lost what was read from it."""
    return position != BEGINNING and (not last or order(last) < order(position))
