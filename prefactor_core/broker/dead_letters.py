"""Looking after dead letters: list, show, replay, purge."""

import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prefactor_core.broker.answers import Outcomes
from prefactor_core.broker.dead_letter import StoredDeadLetter, decode_dead_letter
from prefactor_core.broker.driver import Broker, DeadLetterMessage, PublishingEnd
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.partitions import partition_of

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant; without anything set, all of them.

    Attributes:
        ids: Operation ids.
        instance: The agent instance that they belong to.
    """

    ids: Collection[str] | None = None
    instance: str | None = None

    def takes(self, record: StoredDeadLetter) -> bool:
        """Whether a record is meant."""
        if self.ids is not None and record.id not in self.ids:
            return False
        if self.instance is None:
            return True
        envelope = record.read()
        return envelope is not None and envelope.operation.instance_id == self.instance


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay.

    Attributes:
        replayed: How many operations were published again, and removed from the dead letters.
        unreadable: How many stay where they are because this release cannot read them.
        gone: Ids that were meant and are not among the dead letters any more: somebody else has replayed or
            purged them.
        delivered: How many of the replayed were settled: they have taken effect, or the API wants no more of
            their instance.
        kept: Those that were dead-lettered again: reasons, and for each the ids.
        answers: Whether workers can tell the outcome by this transport, so that ``pending`` says something.
    """

    replayed: int = 0
    unreadable: int = 0
    gone: Sequence[str] = ()
    delivered: int = 0
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    answers: bool = True

    @property
    def kept_count(self) -> int:
        """How many were dead-lettered again."""
        return sum(map(len, self.kept.values()))

    @property
    def pending(self) -> int:
        """How many no worker has told the outcome of."""
        return self.replayed - self.delivered - self.kept_count


class DeadLetters:
    """The dead letters of a broker. Every call has connections of its own, and raises ``BrokerError``.

    Args:
        broker: Where they are.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def list(self, selection: Selection = Selection()) -> AsyncGenerator[StoredDeadLetter, None]:
        """Yield the records that are meant, each operation once, the oldest of each partition first."""
        seen: set[str] = set()
        async with self._broker.dead_letters() as end:
            async for stored in end.read():
                record = decode_dead_letter(stored.data, stored.partition)
                # A worker that dies between storing a letter and removing its operation has it stored twice.
                if selection.takes(record) and record.id not in seen:
                    seen.add(record.id)
                    yield record

    async def replay(self, selection: Selection, *, new_key: bool = False, wait: float = 0.0) -> Replay:
        """Publish the operations that are meant once more, each instance in its sequence, then remove them.

        A failure in the middle leaves what is not removed yet; replaying that again is harmless unless
        new keys were asked for.

        Args:
            selection: Which.
            new_key: Whether to give them new idempotency keys, so that the API takes them for new work.
            wait: Seconds without news after which the outcomes that are missing are not waited for any
                longer. 0 waits for none.

        Returns:
            What was replayed, and what workers have said of it.
        """
        meant, unreadable = await self._meant(selection)
        # An end of its own: one that reads can keep the dead letters from other readers until it ends.
        async with self._broker.dead_letters() as end:
            address = await end.open_answers() if wait > 0 and meant else None
            replayed: dict[str, None] = {}
            outcomes = Outcomes(end, replayed)
            if address is None:
                await self._publish_all(meant, replayed, new_key=new_key, answer_to=None)
            else:
                # They are taken while more is published, so that they pile up nowhere.
                async with outcomes.collecting():
                    await self._publish_all(meant, replayed, new_key=new_key, answer_to=address)
                    await outcomes.wait(wait)
        named = meant if selection.ids is None else selection.ids
        return Replay(
            replayed=len(replayed),
            unreadable=len(unreadable),
            gone=tuple(id_ for id_ in named if id_ not in replayed and id_ not in unreadable),
            delivered=outcomes.delivered,
            kept=outcomes.kept,
            answers=wait <= 0 or not meant or address is not None,
        )

    async def _publish_all(
        self,
        meant: Mapping[str, tuple[str, int]],
        replayed: dict[str, None],
        *,
        new_key: bool,
        answer_to: str | None,
    ) -> None:
        """Publish and remove what is meant, in order, and note in ``replayed`` what was."""
        publishing = self._broker.publishing()
        try:
            partitions = await publishing.partitions()
            async with self._broker.dead_letters() as end:
                # Read anew: receipts may live only as long as the end that read them.
                stored: dict[str, list[DeadLetterMessage]] = {}
                async for letter in end.read():
                    record = decode_dead_letter(letter.data, letter.partition)
                    if record.id in meant:
                        stored.setdefault(record.id, []).append(letter)
                for id_ in sorted(stored, key=lambda id_: meant[id_]):
                    envelope = decode_dead_letter(stored[id_][0].data, 0).read()
                    if envelope is None:
                        continue
                    again = replace(envelope, answer_to=answer_to)
                    await _publish(publishing, again, partitions, new_key=new_key)
                    await end.remove(stored[id_])
                    replayed[id_] = None
        finally:
            await publishing.disconnect()

    async def purge(self, selection: Selection) -> int:
        """Remove the records that are meant for good, and return how many operations that were."""
        gone: set[str] = set()
        async with self._broker.dead_letters() as end:
            batch: list[DeadLetterMessage] = []
            async for stored in end.read():
                record = decode_dead_letter(stored.data, stored.partition)
                if not selection.takes(record):
                    continue
                gone.add(record.id)
                batch.append(stored)
                if len(batch) >= _AT_ONCE:
                    await end.remove(batch)
                    batch = []
            await end.remove(batch)
        return len(gone)

    async def _meant(self, selection: Selection) -> tuple[dict[str, tuple[str, int]], set[str]]:
        """Return the ids that are meant with their place in the order, and those that are unreadable."""
        meant: dict[str, tuple[str, int]] = {}
        unreadable: set[str] = set()
        async for record in self.list(selection):
            envelope = record.read()
            if envelope is None:
                unreadable.add(record.id)
            else:
                meant[record.id] = (envelope.operation.instance_id or "", envelope.sequence)
        return meant, unreadable


async def _publish(end: PublishingEnd, envelope: Envelope, partitions: int, *, new_key: bool) -> None:
    operation = envelope.operation
    if new_key:
        operation = replace(operation, idempotency_key=secrets.token_hex(16))
    again = replace(envelope, operation=operation, replayed=not new_key)
    name = operation.instance_id or envelope.id
    await end.publish(partition_of(name, partitions), [encode(again)])
