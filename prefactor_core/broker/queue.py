"""``BrokerQueue``: a queue whose other end is in another process, by way of a broker.

An agent puts, a worker receives; neither half connects before it is used.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.dead_letters import DeadLetters
from prefactor_core.broker.driver import Broker
from prefactor_core.broker.envelope import check
from prefactor_core.broker.publisher import Publisher
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import InvalidInputError
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery, DirectQueue, Published
from prefactor_core.queue.intake import BufferBounds


class BrokerQueue(DirectQueue[Operation]):
    """Operations on a broker.

    Args:
        broker: What is behind it.
        bounds: How much the buffer holds.
        rng: Source of what is better spread at random.
    """

    local: ClassVar[bool] = False

    def __init__(self, broker: Broker, bounds: BufferBounds, *, rng: random.Random | None = None) -> None:
        self.broker = broker
        self.dead_letters = DeadLetters(broker)
        """The broker's dead letters."""
        self.blocks = bounds.policy == "block"
        self.publisher = Publisher(broker.publishing(), broker.name, bounds)
        self.consumer = Consumer(broker.consuming(), broker.name, rng or random.Random())  # noqa: S311 -- spreads
        self._closed = False

    @classmethod
    def from_config(cls, broker: Broker, config: PrefactorCoreConfig) -> Self:
        """Return a queue on a broker, with the buffer that the configuration describes."""
        return cls(broker, BufferBounds(config.buffer_operations, config.buffer_bytes, config.buffer_policy))

    # -- an agent's half

    def introduce(self, sdk_header: Callable[[], str]) -> None:
        """Name the agent in the envelopes from now on, and publish what is offered from this event loop."""
        self.publisher.sdk_header = sdk_header
        self.publisher.open()

    async def put(self, item: Operation) -> None:
        """Take an operation, to be published in the background.

        With the policy ``drop`` this never suspends: what does not fit into the buffer is dropped with its
        dependents, and counted. With ``block`` it waits for room.

        Raises:
            InvalidInputError: It is no operation, or one that no envelope can hold.
            QueueClosedError: The queue is closed.
        """
        if not isinstance(item, Operation):
            raise InvalidInputError("item", f"a broker holds operations only, got {type(item).__name__}")
        check(item, self.publisher.sdk_header())
        await self.publisher.room_for(item)
        self.offer(item)

    def offer(self, item: Operation) -> None:
        """Take an operation of a client's own, which is sound; otherwise as ``put``, but never wait."""
        self.publisher.offer(item)

    @property
    def put_count(self) -> int:
        """How many operations were put, dropped ones included."""
        return self.publisher.published.put

    @property
    def overfull(self) -> bool:
        """Whether a caller of ``offer`` is to wait for room now."""
        return self.publisher.overfull

    async def room(self) -> None:
        """Wait, in any event loop, until the queue is not ``overfull``, or closed."""
        await self.publisher.room()

    def block_for_room(self) -> None:
        """Block this thread until the queue is not ``overfull``, or closed."""
        self.publisher.block_for_room()

    @property
    def destination(self) -> str:
        """The broker, as messages call it."""
        return self.broker.name

    @property
    def published(self) -> Published:
        """Where everything put here is."""
        return self.publisher.published

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many operations were dropped for want of room, by type."""
        return self.publisher.published.dropped

    async def flush(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything put so far, for ``timeout`` seconds at most."""
        return await self.publisher.flush(timeout)

    # -- a worker's half

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[Operation]]:
        """Return deliveries of the partitions that this process owns, waiting for the first.

        Raises:
            QueueClosedError: The queue is closed; what waits at the broker stays there.
        """
        return await self.consumer.receive(max_items, max_bytes)

    async def get(self) -> Operation:
        """Settle the next operation and return it. What has crashed too many workers is dead-lettered.

        Raises:
            QueueClosedError: The queue is closed.
            BrokerError: It could not be removed, and will come again.
        """
        while True:
            (delivery,) = await self.receive(1, 1)
            try:
                if delivery.dead_letter is not None:
                    await self.dead_letter([(delivery, delivery.dead_letter)])
                    continue
                refused = await self.settle([delivery])
            except BaseException:
                await self.release([delivery])
                raise
            if not refused:
                return delivery.item

    async def settle(self, deliveries: Sequence[Delivery[Operation]]) -> Sequence[Delivery[Operation]]:
        """Remove deliveries from the broker; return those that are another process's by now.

        Raises:
            BrokerError: Not all could be removed; to be repeated with the same deliveries.
        """
        return await self.consumer.settle(deliveries)

    async def dead_letter(
        self, dead_letters: Sequence[tuple[Delivery[Operation], DeadLetter[Operation]]]
    ) -> Sequence[Delivery[Operation]]:
        """Move deliveries to the broker's dead letters; returns and raises as ``settle`` does."""
        return await self.consumer.dead_letter(dead_letters)

    async def release(self, deliveries: Sequence[Delivery[Operation]]) -> None:
        """Release deliveries: they are handed out again, here or by their partition's next owner."""
        await self.consumer.release(deliveries)

    async def depth(self) -> int:
        """Return how many operations are unsettled at the broker, or in the buffer."""
        return self.publisher.waiting + await self.consumer.depth()

    # -- both

    def size(self) -> int:
        """Return how many operations this process has: in the buffer, or to be received."""
        return self.publisher.waiting + self.consumer.waiting

    async def discard(self) -> int:
        """Drop nothing: what is at a broker can still be delivered by others."""
        return 0

    async def close(self, num_waiters: int = 1) -> None:
        """Take nothing more and hand out nothing more. Closing again does nothing.

        Until ``disconnect``, what was put is still published, and deliveries can still be disposed of.
        """
        del num_waiters  # this queue knows who waits
        self._closed = True
        self.publisher.close()
        self.consumer.close()

    async def disconnect(self) -> None:
        """Release all partitions and disconnect. What is not confirmed stays counted as such."""
        self._closed = True
        try:
            await self.publisher.disconnect()
        finally:
            await self.consumer.disconnect()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed
