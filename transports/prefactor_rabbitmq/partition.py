"""A partition that this process owns."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands

from prefactor_core.broker.driver import Loss, Message, Partition
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.attempts import Attempts, Withdrawals
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.handover import HandoverNote
from prefactor_rabbitmq.inbox import PREFETCH, Inbox, Receipt
from prefactor_rabbitmq.link import Link, close_channel
from prefactor_rabbitmq.memory import Memory
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


@dataclass(frozen=True, slots=True)
class Setting:
    """What a partition needs from the end that acquires it.

    Attributes:
        link: The connection; it holds the lease.
        topology: The names, and where to say that something is gone.
        memory: What the process remembers.
        withdrawals: The attempts that it has survived.
        outlet: Where dead letters and records are published.
        retire: Called once when the partition is not held any more; returns the task that hands it over.
        clock: Steady clock, in seconds.
    """

    link: Link
    topology: Topology
    memory: Memory
    withdrawals: Withdrawals
    outlet: Outlet
    retire: Callable[["RabbitPartition"], "asyncio.Task[None]"]
    clock: Callable[[], float]


class RabbitPartition(Partition):
    """Consumes a partition's queue on a channel of its own.

    Args:
        number: Which one.
        setting: Of the end.
    """

    def __init__(self, number: int, setting: Setting) -> None:
        self.number = number
        self.inbox = Inbox(setting.memory)
        self._setting = setting
        self._link = setting.link
        self._memory = setting.memory
        self._attempts = Attempts(number, setting.topology, setting.link, setting.outlet, setting.withdrawals)
        self._note = HandoverNote(number, setting.topology, setting.link, setting.outlet, setting.memory)
        self._channel: AbstractChannel | None = None
        self._lost: Loss | None = None
        self._deleted = False
        self._retirement: asyncio.Task[None] | None = None
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
        await channel.basic_consume(self._setting.topology.names.partition(self.number), self._on_delivery)

    @property
    def held(self) -> bool:
        """Whether channel and connection are there and nothing stood still for a heartbeat."""
        if self._lost is None and not self._link.sound:
            self._lose(self._link.reason or "the connection was lost")
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
        receipt = self._receipt(message)
        self._require_held()
        if receipt is None or not receipt.may_be_poison:
            return 0
        return await self._attempts.attempts(receipt.fingerprint)

    async def begin(self, message: Message) -> bool:
        """Record an attempt at a message in isolation; those at others are not recorded."""
        receipt = self._receipt(message)
        self._require_held()
        if receipt is None or not receipt.may_be_poison:
            return True
        return await self._attempts.begin(receipt.fingerprint)

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
            self._lose("its messages are large; asking for the next of them again")
        self._wake.set()
        return [message for message, receipt in receipts if receipt is None]

    async def dead_letter(self, letters: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Publish the records, and when the broker has confirmed them, settle the messages."""
        messages = [message for message, _ in letters]
        if not self.held:
            return messages
        dead = self._setting.topology.names.dead
        await self._setting.outlet.publish(
            [
                Outgoing("", dead, record, {"partition": self.number, "at": self._memory.stamp()})
                for _, record in letters
            ]
        )
        return await self.settle(messages)

    async def release(self) -> None:
        """Close the channel: a cancelled consumer would leave its messages behind those of the next."""
        self.end("it was released")
        if self._retirement is not None:
            await asyncio.wait({self._retirement})

    def end(self, reason: str) -> None:
        """Be lost from now on, on purpose."""
        self._lose(reason)

    async def hand_over(self) -> None:
        """Close the channel, leave a note, let the lease go: the next owner begins where this one settled."""
        try:
            if self._link.sound:
                with suppress(BrokerError):
                    await self._hand_over()
        finally:
            # This process goes on, so that none of its attempts has crashed it, whatever could not be told.
            self._attempts.abandon()

    async def _hand_over(self) -> None:
        link, channel = self._link, self._channel
        async with link.bounded("giving a partition up"):
            if channel is not None:
                await close_channel(channel)
        if self._deleted:
            await self._note.remove()
        else:
            await self._note.leave(self.inbox.returns)
        await self._attempts.withdraw_all()
        async with link.bounded("letting a partition go"), link.brief_channel() as brief:
            await brief.queue_delete(self._setting.topology.names.owner(self.number))

    @property
    def _in_doubt(self) -> bool:
        """Whether there is a possible poison operation of whom the last owner may know better."""
        return self.inbox.possible_poison > 0 and not self._note.known

    async def _look_for_stall(self) -> None:
        """Lose a partition whose consumer the broker has forgotten: a channel does not show that."""
        queue = self._setting.topology.names.partition(self.number)
        async with self._link.bounded("looking for a stall"), self._link.brief_channel() as channel:
            declared = await channel.queue_declare(queue, passive=True)
        if declared.message_count and not self.inbox:
            self._lose("messages are waiting and none is delivered")

    def _receipt(self, message: Message) -> Receipt | None:
        receipt = message.receipt
        return receipt if isinstance(receipt, Receipt) and receipt.inbox is self.inbox else None

    def _require_held(self) -> None:
        if not self.held:
            raise BrokerError(f"partition {self.number} was lost: {self.loss.reason}")

    def _watch(self) -> None:
        """Look after the partition; called with each tick of the connection, and when that is lost."""
        oldest = self.inbox.oldest
        if self.held and oldest is not None and self._setting.clock() - oldest > UNSETTLED_SECONDS:
            self._lose("its oldest message has been unsettled for too long")

    async def _on_delivery(self, message: DeliveredMessage) -> None:
        if self._lost is not None:  # and until the channel is closed the broker goes on
            self._memory.survive(self.inbox.shed(message))
            return
        room = max(LEAST_HELD, _HOLD * (self._asked or self._memory.read_bytes))
        self.inbox.add(message, self._setting.clock(), room)
        self._wake.set()

    def _on_cancel(self, _: commands.Basic.Cancel) -> None:
        self._setting.topology.invalidate()
        self._deleted = True
        self._lose("its queue was deleted with all that it held; making it again", serious=True)

    def _on_channel_closed(self, closing: "asyncio.Future[object]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if self._link.sound:
            self._lose(f"its channel was closed: {describe(error) if error else 'no reason'}")
        else:
            self._lose(self._link.reason or "the connection was lost")

    def _lose(self, reason: str, *, serious: bool = False) -> None:
        """Be lost from now on. This process goes on, so that what goes back has not crashed it."""
        if self._lost is not None:
            return
        self._lost = Loss(reason, serious)
        self._link.watchers.discard(self._watch)
        for fingerprint in self.inbox.returns:
            self._memory.survive(fingerprint)
        logger.debug("partition %d: %s", self.number, reason)
        self._wake.set()
        self._retirement = self._setting.retire(self)
