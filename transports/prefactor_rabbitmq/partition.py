"""A partition that this process owns."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from prefactor_core.transport import BrokerError, Loss, Message, Partition
from prefactor_rabbitmq.attempts import Attempts, Withdrawals
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.handover import HandoverNote
from prefactor_rabbitmq.inbox import PREFETCH, Inbox, Memory, Receipt
from prefactor_rabbitmq.link import Link, close_channel
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import Topology

logger = logging.getLogger("prefactor_rabbitmq")

READ_SECONDS: Final = 2.0
UNSETTLED_SECONDS: Final = 15 * 60.0
"""Half of the broker's consumer timeout, after which it would close the channel itself."""
IDLE_READS: Final = 5
"""Readings without a message after which the broker is asked whether it really has none."""
_HOLD: Final = 4
"""Times the bytes of the largest read that are held."""
LEAST_HELD: Final = 1024 * 1024
"""Bytes that are held however little is read at a time."""


class RabbitPartition(Partition):
    """Consumes a partition's queue on a channel of its own, for as long as the connection holds the lease.

    It publishes through the outlet. ``on_end`` is called when it was lost and has been handed over.
    """

    def __init__(
        self,
        number: int,
        link: Link,
        topology: Topology,
        memory: Memory,
        withdrawals: Withdrawals,
        outlet: Outlet,
        on_end: Callable[["RabbitPartition"], None],
    ) -> None:
        self.number = number
        self.inbox = Inbox(memory)
        self.handing_over: asyncio.Task[None] | None = None
        """Runs from the loss of the partition until the next owner can begin."""
        self._link = link
        self._topology = topology
        self._memory = memory
        self._outlet = outlet
        self._on_end = on_end
        self._attempts = Attempts(number, topology.names, link, outlet, withdrawals)
        self._note = HandoverNote(number, topology.names, link, outlet, memory)
        self._channel: AbstractChannel | None = None
        self._lost: Loss | None = None
        self._deleted = False
        self._wake = asyncio.Event()
        self._acknowledging = asyncio.Lock()
        self._asked = 0
        self._idle = 0

    async def open(self) -> None:
        """Begin to consume; to be called inside ``bounded``, by who has the partition's lease."""
        channel = await self._link.channel()
        self._channel = channel
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        channel.closing.add_done_callback(self._on_channel_closed)
        await channel.basic_qos(prefetch_count=PREFETCH)
        self._link.watchers.add(self._watch)
        try:
            await channel.basic_consume(self._topology.names.partition(self.number), self._on_delivery)
        except ChannelNotFoundEntity:
            self._topology.invalidate()
            raise

    @property
    def held(self) -> bool:
        """Whether channel and connection are there and nothing stood still for a heartbeat."""
        if self._lost is None and not self._link.sound:
            self.lose(self._link.loss)
        return self._lost is None

    @property
    def loss(self) -> Loss:
        """Why it is not held any more."""
        return self._lost or Loss("the reason is not known")

    @property
    def isolated(self) -> bool:
        """Whether something unsettled may be poison, also after what the last owner says of it."""
        return self.inbox.possible_poison > 0 and self._note.known

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return what has been delivered meanwhile, or wait two seconds for it."""
        self._require_held()
        if not self.isolated and max_bytes > self._asked:
            # Later calls ask for what is left of the caller's room.
            self._asked = self._memory.read_bytes = max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                while not (self.inbox.available or self._in_doubt) and self._lost is None:
                    self._wake.clear()
                    await self._wake.wait()
        self._require_held()
        if self._in_doubt:
            await self._note.read()
            self.inbox.reconsider()
            self._require_held()
        messages = self.inbox.take(max_items, max_bytes)
        self._idle = 0 if self.inbox else self._idle + 1
        if self._idle >= IDLE_READS:
            self._idle = 0
            await self._look_for_stall()
        return messages

    async def attempts(self, message: Message) -> int:
        """Return how often a message in isolation was begun by owners that crashed; others never were."""
        receipt = self._possible_poison(message)
        return 0 if receipt is None else await self._attempts.attempts(receipt.fingerprint)

    async def begin(self, message: Message) -> bool:
        """Record an attempt at a message in isolation; those at others are not recorded."""
        receipt = self._possible_poison(message)
        return receipt is None or await self._attempts.begin(receipt.fingerprint)

    async def withdraw(self, message: Message) -> None:
        """Take an attempt back; where the partition is lost, that is done with the end of it."""
        receipt = self._receipt(message)
        if receipt is not None and self.held:
            await self._attempts.withdraw(receipt.fingerprint)

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Acknowledge messages; those of a lost channel the broker has back already."""
        if not self.held or self._channel is None:
            return list(messages)
        receipts = [(message, self._receipt(message)) for message in messages]
        ours = [receipt for _, receipt in receipts if receipt is not None]
        # One at a time: an acknowledgement of all below a tag must not overtake one of them.
        async with self._acknowledging:
            if self.inbox.ends_returned(ours):
                # Before they are settled: the next owner after a crash here would not know of it.
                await self._note.remove()
                if self._lost is not None:
                    return list(messages)
            async with self._link.bounded("settling"):
                for tag, all_below in self.inbox.settle(ours):
                    await self._channel.basic_ack(tag, multiple=all_below, wait=False)
        await self._attempts.end(ours, more=self.inbox.possible_poison > 0)
        for receipt in ours:
            self._memory.forget(receipt.fingerprint)
        if self.inbox.exhausted:
            self.lose("its messages are large; asking for the next of them again")
        self._wake.set()
        return [message for message, receipt in receipts if receipt is None]

    async def dead_letter(self, dead_letters: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Publish the dead letters, and when the broker has confirmed them, settle the messages."""
        messages = [message for message, _ in dead_letters]
        if not self.held:
            return messages
        dead = self._topology.names.dead
        await self._outlet.publish(
            [
                Outgoing("", dead, stored, {"partition": self.number, "at": self._memory.stamp()})
                for _, stored in dead_letters
            ]
        )
        return await self.settle(messages)

    async def release(self) -> None:
        """Close the channel: a cancelled consumer would leave its messages behind those of the next."""
        self.lose("it was released")
        if self.handing_over is not None:
            await asyncio.wait({self.handing_over})

    def lose(self, reason: str, *, serious: bool = False) -> None:
        """Be lost from now on. This process goes on, so that what goes back has not crashed it."""
        if self._lost is not None:
            return
        self._lost = Loss(reason, serious)
        self._link.watchers.discard(self._watch)
        for fingerprint in self.inbox.returns:
            self._memory.survive(fingerprint)
        logger.debug("partition %d: %s", self.number, reason)
        self._wake.set()
        self.handing_over = asyncio.create_task(self._hand_over(), name="prefactor-rabbitmq-hand-over")

    async def _hand_over(self) -> None:
        try:
            if self._link.sound:
                with suppress(BrokerError):
                    await self._make_way()
        finally:
            # None of its attempts has crashed this process, whatever could not be told.
            self._attempts.abandon()
            self._on_end(self)

    async def _make_way(self) -> None:
        """Close the channel, leave a note, end the lease: the next owner begins where this one settled."""
        if self._channel is not None:
            async with self._link.bounded("releasing a partition"):
                await close_channel(self._channel)
        if self._deleted:
            await self._note.remove()
        else:
            await self._note.leave(self.inbox.returns)
        await self._attempts.withdraw_all()
        await self._link.delete(self._topology.names.owner(self.number), "releasing a partition")

    @property
    def _in_doubt(self) -> bool:
        """Whether there is a possible poison operation about which the last owner may know better."""
        return self.inbox.possible_poison > 0 and not self._note.known

    async def _look_for_stall(self) -> None:
        """Lose a partition whose consumer the broker has forgotten: a channel does not show that."""
        queue = self._topology.names.partition(self.number)
        if (await self._link.look(queue, "looking for a stall")).ready and not self.inbox:
            self.lose("messages are waiting and none is delivered")

    def _receipt(self, message: Message) -> Receipt | None:
        receipt = message.receipt
        return receipt if isinstance(receipt, Receipt) and receipt.inbox is self.inbox else None

    def _possible_poison(self, message: Message) -> Receipt | None:
        self._require_held()
        receipt = self._receipt(message)
        return receipt if receipt is not None and receipt.may_be_poison else None

    def _require_held(self) -> None:
        if not self.held:
            raise BrokerError(f"partition {self.number} was lost: {self.loss.reason}")

    def _watch(self) -> None:
        """Look after the partition; called with each tick of the connection, and when that is lost."""
        oldest = self.inbox.oldest
        if self.held and oldest is not None and self._link.clock() - oldest > UNSETTLED_SECONDS:
            self.lose("its oldest message has been unsettled for too long")

    async def _on_delivery(self, message: DeliveredMessage) -> None:
        if self._lost is not None:  # and until the channel is closed the broker goes on
            self._memory.survive(self.inbox.shed(message))
            return
        room = max(LEAST_HELD, _HOLD * (self._asked or self._memory.read_bytes))
        self.inbox.add(message, self._link.clock(), room)
        self._wake.set()

    def _on_cancel(self, _: commands.Basic.Cancel) -> None:
        self._topology.invalidate()
        self._deleted = True
        self.lose("its queue was deleted with all that it held; making it again", serious=True)

    def _on_channel_closed(self, closing: "asyncio.Future[object]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if self._link.sound:
            self.lose(f"its channel was closed: {describe(error) if error else 'no reason'}")
        else:
            self.lose(self._link.loss)
