"""Looking after dead letters: list, show, replay, purge."""

import secrets
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace

from prefactor_core.broker.driver import Broker, PublishingEnd, StoredLetter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.letters import Record, decode_record
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

    def takes(self, record: Record) -> bool:
        """Whether a record is meant."""
        if self.ids is not None and record.id not in self.ids:
            return False
        if self.instance is None:
            return True
        envelope = record.read()
        return envelope is not None and envelope.operation.instance_id == self.instance


class DeadLetters:
    """The dead letters of a broker. Every call has connections of its own, and raises ``BrokerError``.

    Args:
        broker: Where they are.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def list(self, selection: Selection = Selection()) -> AsyncIterator[Record]:
        """Yield the records that are meant, each operation once, the oldest of each partition first."""
        seen: set[str] = set()
        async with self._broker.dead_letters() as end:
            async for stored in end.read():
                record = decode_record(stored.data, stored.partition)
                # A worker that dies between storing a letter and removing its operation has it stored twice.
                if selection.takes(record) and record.id not in seen:
                    seen.add(record.id)
                    yield record

    async def replay(self, selection: Selection, *, new_key: bool = False) -> tuple[int, int]:
        """Publish the operations that are meant once more, each instance in its sequence, then remove them.

        A failure in the middle leaves what is not removed yet; replaying that again is harmless unless
        new keys were asked for.

        Args:
            selection: Which.
            new_key: Whether to give them new idempotency keys, so that the API takes them for new work.

        Returns:
            How many were replayed, and how many remain because this release cannot read them.
        """
        meant, unreadable = await self._meant(selection)
        replayed: set[str] = set()
        publishing = self._broker.publishing()
        try:
            partitions = await publishing.partitions()
            async with self._broker.dead_letters() as end:
                # Read anew: receipts may live only as long as the end that read them.
                stored: dict[str, list[StoredLetter]] = {}
                async for letter in end.read():
                    record = decode_record(letter.data, letter.partition)
                    if record.id in meant:
                        stored.setdefault(record.id, []).append(letter)
                for id_ in sorted(stored, key=lambda id_: meant[id_]):
                    envelope = decode_record(stored[id_][0].data, 0).read()
                    if envelope is None:
                        continue
                    await _publish(publishing, envelope, partitions, new_key=new_key)
                    await end.remove(stored[id_])
                    replayed.add(id_)
        finally:
            await publishing.disconnect()
        return len(replayed), unreadable

    async def purge(self, selection: Selection) -> int:
        """Remove the records that are meant for good, and return how many operations that were."""
        gone: set[str] = set()
        async with self._broker.dead_letters() as end:
            batch: list[StoredLetter] = []
            async for stored in end.read():
                record = decode_record(stored.data, stored.partition)
                if not selection.takes(record):
                    continue
                gone.add(record.id)
                batch.append(stored)
                if len(batch) >= _AT_ONCE:
                    await end.remove(batch)
                    batch = []
            await end.remove(batch)
        return len(gone)

    async def _meant(self, selection: Selection) -> tuple[dict[str, tuple[str, int]], int]:
        """Return the ids that are meant with their place in the order, and how many are unreadable."""
        meant: dict[str, tuple[str, int]] = {}
        unreadable = 0
        async for record in self.list(selection):
            envelope = record.read()
            if envelope is None:
                unreadable += 1
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
