"""A partition that this process owns: read, settle, the fence around both, and its release."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from prefactor_core.transport import MAX_ATTEMPTS, BrokerError, Lease, Loss, Message, Partition
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease_scripts import BEGIN, CRASHES, RELEASE, WITHDRAW
from prefactor_redis.link import BEGINNING, Reply, ScriptCall, Word, data, integer, items, maybe_data, order
from prefactor_redis.reading import Cursor
from prefactor_redis.scripts import DEAD_LETTER, IDS_AT_ONCE, SEE, SETTLE, Script, chunks
from prefactor_redis.servers import Links

logger = logging.getLogger("prefactor_redis")

_UNRELEASED: Final = 2_048
"""Losses that are remembered; beyond, the oldest stand as crashes."""
_NOT_RENEWED: Final = Loss("its lease could not be renewed in time")
_LEASE_LOST: Final = Loss("its lease ran out, and others may own it")
_STREAM_LOST: Final = Loss(
    "the broker has lost its stream, or a part of it: it was emptied, or a replica took over that did not "
    "have everything. Operations that were published and not settled may be gone; reading starts again from "
    "the first that is there",
    serious=True,
)


class Releases:
    """Releases partitions, and remembers those whose release has not reached the broker.

    To their next owners it looks as if this one had crashed. As it lives, it says so once it can.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._untold: dict[bytes, PartitionKeys] = {}

    def add(self, keys: PartitionKeys, token: bytes) -> None:
        """Remember a partition and the token by which it was owned."""
        self._untold[token] = keys
        while len(self._untold) > _UNRELEASED:
            del self._untold[next(iter(self._untold))]

    async def release(self, keys: PartitionKeys, token: bytes) -> None:
        """Say, now or later, that the owner with this token has not crashed, and owns it no longer."""
        try:
            await self._links.run(RELEASE, keys.owned, (token, CRASHES))
        except BrokerError as error:
            logger.debug("a partition was not released yet, and will run out: %s", error)
            self.add(keys, token)
        else:
            self._untold.pop(token, None)

    async def catch_up(self, seconds: float) -> None:
        """Release all that are remembered; what does not work in that time is for the next call."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as together:
                for token, keys in self._untold.items():
                    together.create_task(self.release(keys, token))
        except TimeoutError:
            logger.debug("%d partitions are not released yet", len(self._untold))


@dataclass(eq=False, kw_only=True)
class RedisPartition(Partition):
    """A partition of Redis.

    Attributes:
        name: What logs call it.
        token: What tells its owner from others.
        links: Connections for all but reading.
        seen: Everything up to this id may have been handled before.
        isolating: Whether owners crashed here, and what they were handed is not all settled yet.
        begun: The id of the operation that this owner recorded an attempt at, until that has ended.
        released: Whether nothing is left to be done for its release.
    """

    number: int
    name: str
    keys: PartitionKeys
    token: bytes
    lease: Lease
    links: Links
    cursor: Cursor
    seen: bytes
    isolating: bool
    releases: Releases
    begun: bytes = field(default=b"", init=False)
    released: bool = field(default=False, init=False)
    _loss: Loss | None = field(default=None, init=False)

    @property
    def held(self) -> bool:
        """Whether the lease cannot have run out yet; nobody is asked."""
        return self.lease.held

    @property
    def loss(self) -> Loss:
        """Why it is not held any more."""
        return self._loss or _NOT_RENEWED

    @property
    def isolated(self) -> bool:
        """Whether one operation at a time is to be handled."""
        return self.isolating

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages, once the broker has said after reading them that they are ours."""
        self._require_held()
        if not self.cursor.surplus:
            try:
                found = await self.cursor.fetch(max_items, max_bytes)
            except BrokerError as error:
                raise BrokerError(f"{self.name}: {error}") from error
            self._require_held()
            if found:
                # An owner that was frozen in its read is served before it can know that it owns nothing: what
                # it got must not be handed out before the broker has said that it is the owner still.
                await self._run_as_owner(SEE, (found[-1][0],))
                self._require_held()
                self.cursor.accept(found)
        seen = order(self.seen)
        return [
            Message(value, number, redelivered=order(number) <= seen)
            for number, value in self.cursor.take(max_items, max_bytes)
        ]

    async def attempts(self, message: Message) -> int:
        """Return how many attempts of earlier owners stand."""
        self._require_held()
        id_ = _id_of(message)
        recorded = int(maybe_data(await self.links.call("HGET", self.keys.attempts, id_)) or 0)
        begun = maybe_data(await self.links.call("HGET", self.keys.owner, "begun"))
        return recorded - 1 if recorded and self.begun == id_ == begun else recorded

    async def begin(self, message: Message) -> bool:
        """Record an attempt, while isolated; return whether it is one of the first three."""
        if not self.isolating:
            return True
        self._require_held()
        self.begun = _id_of(message)
        (recorded,) = await self._run_as_owner(BEGIN, (self.begun,))
        return integer(recorded) <= MAX_ATTEMPTS

    async def withdraw(self, message: Message) -> None:
        """Take this owner's attempt back, if it has not ended; a release does that, too."""
        if self.begun == _id_of(message):
            await self._run_as_owner(WITHDRAW, (self.begun,))
            self.begun = b""

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete messages from the stream; return those left because the partition is lost."""
        return await self._dispose(SETTLE, [(message, ()) for message in messages])

    async def dead_letter(self, dead: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Move messages to the dead letters, each in one step; return those left as the partition is lost."""
        return await self._dispose(DEAD_LETTER, [(one, (stored,)) for one, stored in dead], self.keys.dead)

    async def release(self) -> None:
        """End a read in flight, and delete the lease, and all keys of a partition that is empty."""
        self.lease.end()
        if not self.released:
            await self.cursor.close()
            await self.releases.release(self.keys, self.token)
            self.released = True

    # -- the lease

    def renewal(self) -> tuple[ScriptCall, Callable[[Reply], None]]:
        """Return a renewal to be sent at once, and what takes the reply to it."""
        asked_at, position = self.lease.clock(), self.cursor.position

        def take(reply: Reply) -> None:
            done, last = items(reply)
            if integer(done) and not _went_back(data(last), position):
                self.lease.renewed(asked_at)
            else:
                self._lose(data(last), position)

        return (self.keys.owned, (self.token, int(self.lease.seconds * 1_000))), take

    def stop(self) -> None:
        """Read no more: the lease is held no longer."""
        self.lease.end()
        self.cursor.stop()

    async def _fenced(self, script: Script, args: Sequence[Word], *further: bytes) -> list[Reply] | None:
        """Run a script as the owner; ``None`` means that we are not, and that the partition is lost."""
        position = self.cursor.position
        done, *rest = items(await self.links.run(script, (*self.keys.owned, *further), (self.token, *args)))
        if integer(done):
            return rest
        self._lose(data(rest[0]), position)
        return None

    async def _run_as_owner(self, script: Script, args: Sequence[Word]) -> list[Reply]:
        reply = await self._fenced(script, args)
        if reply is None:
            raise self._not_held()
        return reply

    async def _dispose(
        self, script: Script, whole: Sequence[tuple[Message, tuple[bytes, ...]]], *further: bytes
    ) -> list[Message]:
        """Run a script that removes messages, each with its arguments; return those that were refused."""
        refused = [message for message, _ in whole]
        for chunk in chunks(whole, IDS_AT_ONCE, lambda one: sum(map(len, one[1]))):
            ids = [_id_of(message) for message, _ in chunk]
            args = [word for id_, (_, more) in zip(ids, chunk, strict=True) for word in (id_, *more)]
            reply = await self._fenced(script, args, *further) if self.held else None
            if reply is None:
                break
            del refused[: len(chunk)]
            if self.begun in ids:
                self.begun = b""
            if self.isolating and not integer(reply[0]):
                self.isolating = False
                done = "%s: the operations that may have crashed its owners are disposed of; isolation ends"
                logger.info(done, self.name)
        return refused

    def _lose(self, last: bytes, position: bytes) -> None:
        """Stop, as the stream, whose last id is ``last``, or the lease on it is lost."""
        self._loss = self._loss or (_STREAM_LOST if _went_back(last, position) else _LEASE_LOST)
        self.stop()

    def _require_held(self) -> None:
        if not self.held:
            raise self._not_held()

    def _not_held(self) -> BrokerError:
        return BrokerError(f"{self.name} is not owned by this process any more")


def _id_of(message: Message) -> bytes:
    if not isinstance(message.receipt, bytes):
        raise TypeError("the message is of another broker")
    return message.receipt


def _went_back(last: bytes, position: bytes) -> bool:
    """Whether a stream whose last id is ``last``, empty if there is none, has lost what was read from it."""
    return position != BEGINNING and (not last or order(last) < order(position))
