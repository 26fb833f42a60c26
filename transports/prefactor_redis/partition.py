"""A partition that this process owns: read, settle, and the fence around both."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from prefactor_core.transport import MAX_ATTEMPTS, BrokerError, Lease, Loss, Message, Partition
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease_scripts import BEGIN, WITHDRAW
from prefactor_redis.link import ScriptCall
from prefactor_redis.reading import Cursor, Entry
from prefactor_redis.release import Unreleased, release
from prefactor_redis.replies import BEGINNING, Reply, Word, data, integer, items, maybe_data, order
from prefactor_redis.scripts import DEAD_LETTER, SEE, SETTLE, Script, chunks
from prefactor_redis.servers import Links

logger = logging.getLogger("prefactor_redis")

_IDS_AT_ONCE: Final = 500


class Renewal(NamedTuple):
    """One renewal of a lease: when it was asked for, how far the stream was read then, and the call."""

    asked_at: float
    position: bytes
    call: ScriptCall


class RedisPartition(Partition):
    """A partition of Redis.

    Args:
        number: Which one.
        name: What logs call it.
        keys: Its keys.
        token: What tells its owner from others.
        lease: For how long it is owned.
        links: Connections for all but reading.
        cursor: What reads.
        seen: Everything up to this id may have been handled before; ``None`` if nothing was handed out.
        isolated: Whether one operation at a time is to be handled.
        unreleased: Remembers it if its release does not reach the broker.
        on_release: Called once it is released.
    """

    def __init__(
        self,
        number: int,
        name: str,
        keys: PartitionKeys,
        token: bytes,
        lease: Lease,
        links: Links,
        cursor: Cursor,
        *,
        seen: bytes | None,
        isolated: bool,
        unreleased: Unreleased,
        on_release: Callable[["RedisPartition"], None],
    ) -> None:
        self.number = number
        self.keys = keys
        self.token = token
        self._name = name
        self._lease = lease
        self._links = links
        self._cursor = cursor
        self._seen = order(seen or BEGINNING)
        self._isolated = isolated
        self._begun = b""
        """The id of the operation that this owner recorded an attempt at, until that has ended."""
        self._unreleased = unreleased
        self._on_release = on_release
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

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages, once the broker has said after reading them that they are ours."""
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
        """Return how many attempts of earlier owners stand."""
        self._require_held()
        id_ = _id_of(message)
        link = await self._links.of(self.keys.attempts)
        questions: list[list[Word]] = [
            ["HGET", self.keys.attempts, id_],
            ["HGET", self.keys.owner, "begun"],
        ]
        reply, begun = map(maybe_data, await link.call_each(questions))
        recorded = 0 if reply is None else int(reply)
        return recorded - 1 if recorded and self._begun == id_ == begun else recorded

    async def begin(self, message: Message) -> bool:
        """Record an attempt, while isolated; return whether it is one of the first three."""
        if not self._isolated:
            return True
        self._require_held()
        self._begun = _id_of(message)
        (recorded,) = await self._run_as_owner(BEGIN, (self._begun,))
        return integer(recorded) <= MAX_ATTEMPTS

    async def withdraw(self, message: Message) -> None:
        """Take this owner's attempt back, if it has not ended; a release does that, too."""
        if self._begun == _id_of(message):
            await self._run_as_owner(WITHDRAW, (self._begun,))
            self._begun = b""

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete messages from the stream; return those left because the partition is lost."""
        refused = list(messages)
        for chunk in chunks(messages, _IDS_AT_ONCE):
            ids = [_id_of(message) for message in chunk]
            if not await self._dispose(ids, SETTLE, ids):
                break
            del refused[: len(chunk)]
        return refused

    async def dead_letter(self, dead: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Move messages to the dead letters, each in one step; return those left as the partition is lost."""
        refused = [message for message, _ in dead]
        for chunk in chunks(dead, _IDS_AT_ONCE, lambda one: len(one[1])):
            ids = [_id_of(message) for message, _ in chunk]
            args = [word for id_, (_, stored) in zip(ids, chunk, strict=True) for word in (id_, stored)]
            if not await self._dispose(ids, DEAD_LETTER, args, self.keys.dead):
                break
            del refused[: len(chunk)]
        return refused

    async def release(self) -> None:
        """End a read under way, and delete the lease, and all keys of a partition that is empty."""
        self._lease.end()
        if self._released:
            return
        self._ending = True
        await self._cursor.close()
        try:
            await release(self._links, self.keys, self.token)
        except BrokerError as error:
            logger.debug("%s was not released, and will run out: %s", self._name, error)
            self._unreleased.add(self.keys, self.token)
        self._released = True
        self._on_release(self)

    # -- the lease

    def renewal(self) -> Renewal:
        """Return a renewal to be sent at once."""
        args = (self.token, int(self._lease.seconds * 1_000))
        return Renewal(self._lease.clock(), self._cursor.position, (self.keys.owned, args))

    def renewed(self, renewal: Renewal, reply: Reply) -> bool:
        """Take the reply to a renewal; return whether the lease, if it is still ours, may be kept."""
        done, last = items(reply)
        if not integer(done):
            self._refused(data(last), renewal.position)
            return True
        if _went_back(data(last), renewal.position):
            self._lose_stream()
            return False
        self._lease.renewed(renewal.asked_at)
        return True

    def expired(self) -> None:
        """Stop reading: the lease is held no longer."""
        if not (self._ending or self._loss):
            self._stop()

    async def _fenced(self, script: Script, args: Sequence[Word], *further: bytes) -> list[Reply] | None:
        """Run a script as the owner; ``None`` means that we are not, and that the partition is lost."""
        position = self._cursor.position
        link = await self._links.of(self.keys.operations)
        done, *rest = items(await link.run(script, (*self.keys.owned, *further), (self.token, *args)))
        if integer(done):
            return rest
        self._refused(data(rest[0]), position)
        return None

    async def _dispose(
        self, ids: Sequence[bytes], script: Script, args: Sequence[Word], *further: bytes
    ) -> bool:
        """Run a script that removes messages; return whether it did, and the partition is not lost."""
        if not self.held:
            return False
        reply = await self._fenced(script, args, *further)
        if reply is None:
            return False
        if self._begun in ids:
            self._begun = b""
        if self._isolated and not integer(reply[0]):
            self._isolated = False
            logger.info("%s: what crashed its owners is behind; full speed again", self._name)
        return True

    async def _run_as_owner(self, script: Script, args: Sequence[Word]) -> list[Reply]:
        reply = await self._fenced(script, args)
        if reply is None:
            raise self._not_held()
        return reply

    async def _accept(self, found: Sequence[Entry]) -> None:
        # An owner that was frozen inside its read is served before it can know that it owns nothing any more.
        # What it got must not be handed out before the broker has said that it is the owner still.
        await self._run_as_owner(SEE, (found[-1][0],))
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
