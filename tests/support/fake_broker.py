"""A broker in memory, and every way in which it can misbehave.

Partitions are logs of what is unsettled, owned by leases that run on the event loop's clock. It keeps the
driver's contract and shares no code with any transport; it also notes what must never happen (two owners that
both may be sure, two batches of a partition under way from one producer).
"""

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from prefactor_core.broker.driver import (
    MAX_ATTEMPTS,
    Broker,
    ConsumingEnd,
    DeadLetterEnd,
    DeadLetterMessage,
    Fleet,
    Message,
    Partition,
    PartitionState,
    PublishingEnd,
)
from prefactor_core.exceptions import BrokerError

R = TypeVar("R")

SAFE_PART: Final = 0.8
"""The part of a lease for which its owner is sure of it."""
_CRASHES: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call.

    Attributes:
        after: Whether it fails after its effect; otherwise before.
        error: What it fails with.
    """

    after: bool = False
    error: Exception = field(default_factory=lambda: BrokerError("a fault"))


@dataclass(frozen=True, slots=True)
class PublishFault:
    """What goes wrong with one batch.

    Attributes:
        confirmed: Envelopes at its head that are confirmed.
        arrived: Those that arrive in truth.
        error: What it fails with, if with no ``BrokerError``.
    """

    confirmed: int = 0
    arrived: int = 0
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """An envelope that is not settled."""

    number: int
    data: bytes
    at: float
    handed_out: bool = False
    begun: int = 0


@dataclass(slots=True, eq=False)
class Lease:
    """The right to a partition, by the broker's clock."""

    token: object
    expires: float


class FakeBroker(Broker):
    """The broker itself, and the switches.

    Args:
        partitions: How many.
        lease: Seconds that a lease and a membership last.
        ranks: Whether a fleet's members learn their ranks.
        fences_locally: Whether an owner that has lost its lease refuses to settle without asking.
    """

    def __init__(
        self, partitions: int = 4, *, lease: float = 10.0, ranks: bool = True, fences_locally: bool = True
    ) -> None:
        self.name = "fake://broker"
        self.count = partitions
        self.lease_seconds = lease
        self.ranks = ranks
        self.fences_locally = fences_locally
        self.timeout = 10.0
        self.block = 2.0
        self.latency: Callable[[], float] = lambda: 0.001
        self.unavailable = False
        self.scripts: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self.faults: Callable[[str], Fault | None] = lambda _: None
        self.publish_script: deque[PublishFault | None] = deque()
        self.publish_faults: Callable[[int, int], PublishFault | None] = lambda *_: None
        self.isolated: set[int] = set()
        """Partitions that are handled one operation at a time whatever happened there."""
        self.buries_in_steps = False
        """Whether a dead letter is stored first and its operation removed later, not both in one step."""

        self.logs: list[list[Entry]] = [[] for _ in range(partitions)]
        self.arrived: list[list[bytes]] = [[] for _ in range(partitions)]
        """Everything that was ever published, repeats included."""
        self.batches: list[tuple[int, int]] = []
        """Every batch: its partition, and how many were in it."""
        self.all_dead: list[DeadLetterMessage] = []
        self.leases: dict[int, Lease] = {}
        self.crashes: Counter[int] = Counter()
        self.isolated_until: Counter[int] = Counter()
        self.members: dict[object, float] = {}
        self.aside: dict[object, float] = {}
        """Who stands aside, and until when without another word."""
        self.answers: dict[str, list[bytes]] = {}
        """By open address: what has arrived there and was not read."""
        self.tells_outcomes = True
        """Whether a replay can be answered."""
        self.calls: Counter[str] = Counter()
        self.grants: list[tuple[float, int, FakeConsumingEnd]] = []
        self.wrongs: list[str] = []
        """What must never happen, and did."""
        self.ends: list[FakeConsumingEnd] = []
        self.changed = [asyncio.Event() for _ in range(partitions)]
        self._numbers = itertools.count(1)
        self._excused: dict[int, float] = {}

    # -- as a driver

    def publishing(self) -> "FakePublishingEnd":
        return FakePublishingEnd(self)

    def consuming(self) -> "FakeConsumingEnd":
        end = FakeConsumingEnd(self)
        self.ends.append(end)
        return end

    def dead_letters(self) -> "FakeDeadLetterEnd":
        return FakeDeadLetterEnd(self)

    async def check(self) -> list[str]:
        return await self.call("check", lambda: ["it is a fake"])

    async def clear(self) -> None:
        raise NotImplementedError("no test of the engine clears a broker")

    # -- switches

    def fail(self, name: str, *faults: Fault | None) -> None:
        """Have the next calls of that name fail so; ``None`` lets one pass."""
        self.scripts[name].extend(faults)

    def lose(self, number: int) -> None:
        """Forget a lease. Its owner finds out when it next asks."""
        if self.leases.pop(number, None) is not None:
            self._excused[number] = now() + self.lease_seconds

    @property
    def unsettled(self) -> int:
        return sum(map(len, self.logs))

    def owners(self) -> "dict[int, list[FakeConsumingEnd]]":
        """By partition: every end that is sure to own it."""
        found: defaultdict[int, list[FakeConsumingEnd]] = defaultdict(list)
        for end in self.ends:
            for partition in end.owned:
                if partition.held:
                    found[partition.number].append(end)
        return dict(found)

    def put(self, number: int, *envelopes: bytes) -> None:
        """Have envelopes arrive."""
        for data in envelopes:
            self.arrived[number].append(data)
            self.logs[number].append(Entry(next(self._numbers), data, now()))
        self.wake(number)

    def check_given_up(self, number: int) -> None:
        """Note it if somebody is sure to own a partition that is given to another."""
        if self._excused.get(number, 0.0) < now() and self.owners().get(number):
            self.wrongs.append(f"partition {number} was given away while its owner was sure of it")

    # -- what the ends use

    def wake(self, number: int) -> None:
        self.changed[number].set()
        self.changed[number] = asyncio.Event()

    async def call(self, name: str, effect: Callable[[], R], end: "FakeConsumingEnd | None" = None) -> R:
        """Have ``effect`` happen at the broker, and the answer come back, or not."""
        self.calls[name] += 1
        try:
            async with asyncio.timeout(self.timeout):
                await asyncio.sleep(self.latency())
                self._require_there(end)
                script = self.scripts[name]
                fault = script.popleft() if script else self.faults(name)
                if fault is not None and not fault.after:
                    raise fault.error
                result = effect()
                await asyncio.sleep(self.latency())
                self._require_there(end)
                if fault is not None:
                    raise fault.error
        except TimeoutError:
            raise BrokerError(f"{name}: no answer in time") from None
        return result

    def owner_is(self, number: int, token: object) -> bool:
        lease = self.leases.get(number)
        return lease is not None and lease.token is token and lease.expires > now()

    def _require_there(self, end: "FakeConsumingEnd | None") -> None:
        if self.unavailable or (end is not None and end.crashed):
            raise BrokerError("no connection to the broker")


class FakePublishingEnd(PublishingEnd):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._under_way: set[int] = set()
        self.disconnected = False

    async def partitions(self) -> int:
        return await self._broker.call("publisher.partitions", lambda: self._broker.count)

    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        broker = self._broker
        if partition in self._under_way:
            broker.wrongs.append(f"two batches of partition {partition} are under way")
        self._under_way.add(partition)
        script = broker.publish_script
        fault = script.popleft() if script else broker.publish_faults(partition, len(batch))

        def arrive() -> None:
            broker.batches.append((partition, len(batch)))
            broker.put(partition, *(batch if fault is None else batch[: fault.arrived]))

        try:
            await broker.call("publish", arrive)
        finally:
            self._under_way.remove(partition)
        if fault is not None:
            raise fault.error or BrokerError("a batch failed", fault.confirmed)

    async def disconnect(self) -> None:
        self.disconnected = True


class FakePartition(Partition):
    def __init__(self, broker: FakeBroker, end: "FakeConsumingEnd", number: int, asked_at: float) -> None:
        self.number = number
        self._broker = broker
        self._end = end
        self._token = end.token(number)
        self._sure_until = asked_at + broker.lease_seconds * SAFE_PART
        self._ended = False
        self._told = False
        self._cursor = 0
        self._begun: Entry | None = None
        if broker.crashes[number] >= _CRASHES:
            handed_out = [entry.number for entry in broker.logs[number] if entry.handed_out]
            broker.isolated_until[number] = max(handed_out, default=0)
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    @property
    def held(self) -> bool:
        return not self._ended and not self._end.crashed and now() < self._sure_until

    @property
    def isolated(self) -> bool:
        if self.number in self._broker.isolated:
            return True
        log = self._broker.logs[self.number]
        return bool(log) and log[0].number <= self._broker.isolated_until[self.number]

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        assert max_items > 0
        until = now() + self._broker.block
        while True:
            self._require_held()
            changed = self._broker.changed[self.number]
            found = await self._call("read", lambda: self._next(max_items, max_bytes))
            self._require_held()
            if found:
                self._cursor = found[-1][0].number
                return [message for _, message in found]
            if now() >= until:
                return []
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                pass

    async def attempts(self, message: Message) -> int:
        assert isinstance(message.receipt, Entry)
        return message.receipt.begun

    async def begin(self, message: Message) -> bool:
        return await self._call("begin", lambda: self._begin(message))

    async def withdraw(self, message: Message) -> None:
        await self._call("withdraw", lambda: self._withdraw(message))

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self._broker.fences_locally and not self.held:
            return list(messages)
        return await self._call("settle", lambda: self._remove(messages))

    async def dead_letter(self, all_dead: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        messages = [message for message, _ in all_dead]

        def store() -> None:
            if self._is_owner():
                self._broker.all_dead += [
                    DeadLetterMessage(record, self.number, object())
                    for message, record in all_dead
                    if message.receipt in self._broker.logs[self.number]
                ]

        def dead_letter_all() -> Sequence[Message]:
            store()
            return self._remove(messages)

        if self._broker.fences_locally and not self.held:
            return messages
        if self._broker.buries_in_steps:
            await self._call("store_letters", store)
            return await self._call("dead_letter", lambda: self._remove(messages))
        return await self._call("dead_letter", dead_letter_all)

    async def release(self) -> None:
        self.stop()
        if not self._told:
            try:
                await self._call("release", self._give_up)
            except BrokerError:
                return  # it runs out by itself
            self._told = True
        self._end.owned.pop(self, None)

    def stop(self) -> None:
        self._ended = True
        self._renewing.cancel()
        self._broker.wake(self.number)

    async def _call(self, name: str, effect: Callable[[], R]) -> R:
        return await self._broker.call(name, effect, self._end)

    def _require_held(self) -> None:
        if not self.held:
            raise BrokerError("the partition is lost")

    def _is_owner(self) -> bool:
        """Asked at the broker: whether the lease is ours; if not, it never will be again."""
        if not self._broker.owner_is(self.number, self._token):
            self._ended = True
            return False
        return True

    def _next(self, max_items: int, max_bytes: int) -> list[tuple[Entry, Message]]:
        if not self._is_owner():
            raise BrokerError("the partition is lost")
        found: list[tuple[Entry, Message]] = []
        size = 0
        for entry in self._broker.logs[self.number]:
            if entry.number <= self._cursor:
                continue
            found.append((entry, Message(entry.data, entry, entry.handed_out)))
            entry.handed_out = True
            size += len(entry.data)
            if len(found) >= max_items or size >= max_bytes:
                break
        return found

    def _begin(self, message: Message) -> bool:
        if not self._is_owner():
            raise BrokerError("the partition is lost")
        assert isinstance(message.receipt, Entry)
        message.receipt.begun += self._begun is not message.receipt
        self._begun = message.receipt
        return message.receipt.begun <= MAX_ATTEMPTS

    def _withdraw(self, message: Message) -> None:
        if self._is_owner() and self._begun is message.receipt and self._begun is not None:
            self._begun.begun -= 1
            self._begun = None

    def _remove(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not self._is_owner():
            return list(messages)
        gone = {id(message.receipt) for message in messages}
        log = self._broker.logs[self.number]
        log[:] = [entry for entry in log if id(entry) not in gone]
        self._broker.crashes[self.number] = 0
        return []

    def _give_up(self) -> None:
        if self._broker.owner_is(self.number, self._token):
            del self._broker.leases[self.number]

    async def _renew(self) -> None:
        while self.held:
            await asyncio.sleep(self._broker.lease_seconds / 4)
            asked_at = now()  # the owner counts from the question, the broker from its answer
            try:
                if await self._call("renew", self._extend) and self.held:
                    self._sure_until = asked_at + self._broker.lease_seconds * SAFE_PART
            except BrokerError:
                continue

    def _extend(self) -> bool:
        if not self._is_owner():
            return False
        self._broker.leases[self.number].expires = now() + self._broker.lease_seconds
        return True


class FakeConsumingEnd(ConsumingEnd):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._tokens: dict[int, object] = {}
        self.owned: dict[FakePartition, None] = {}
        self.crashed = False
        self.disconnected = False

    def crash(self) -> None:
        """Be gone without a word: leases and membership run out by themselves."""
        self.crashed = True
        for partition in self.owned:
            partition.stop()

    def token(self, number: int) -> object:
        return self._tokens[number]

    async def partitions(self) -> int:
        return await self._call("partitions", lambda: self._broker.count)

    async def fleet(self) -> Fleet:
        def join() -> Fleet:
            members = self._broker.members
            self._broker.aside.pop(self, None)
            members[self] = now() + self._broker.lease_seconds
            for member in [member for member, until in members.items() if until <= now()]:
                del members[member]
            return Fleet(len(members), [*members].index(self) if self._broker.ranks else None)

        return await self._call("fleet", join)

    async def stand_aside(self) -> None:
        def leave() -> None:
            self._broker.members.pop(self, None)
            self._broker.aside[self] = now() + self._broker.lease_seconds

        if any(partition.held for partition in self.owned):
            self._broker.wrongs.append("an owner of partitions stands aside")
        await self._call("stand_aside", leave)

    async def standing_aside(self) -> int:
        def look() -> int:
            return sum(until > now() for until in self._broker.aside.values())

        return await self._call("standing_aside", look)

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        def arrive() -> None:
            if address in self._broker.answers:
                self._broker.answers[address] += answers

        await self._call("answer", arrive)

    async def acquire(self, partition: int, max_items: int) -> Partition | None:
        assert max_items > 0
        broker = self._broker
        # After an answer that did not come the same token finds what it got.
        token = self._tokens.setdefault(partition, object())
        asked_at = now()

        def take() -> bool:
            lease = broker.leases.get(partition)
            if lease is not None and lease.expires > now():
                return lease.token is token
            if lease is not None:
                broker.crashes[partition] += 1  # it ran out without being released
            broker.check_given_up(partition)
            broker.leases[partition] = Lease(token, now() + broker.lease_seconds)
            broker.grants.append((now(), partition, self))
            return True

        if not await self._call("acquire", take):
            del self._tokens[partition]
            return None
        owned = FakePartition(broker, self, partition, asked_at)
        del self._tokens[partition]
        self.owned[owned] = None
        return owned

    async def backlog(self) -> int:
        return await self._call("waiting", lambda: self._broker.unsettled)

    async def states(self) -> list[PartitionState]:
        def look() -> list[PartitionState]:
            return [
                PartitionState(number, len(log), None, "" if number in self._broker.leases else None)
                for number, log in enumerate(self._broker.logs)
            ]

        return await self._call("states", look)

    async def disconnect(self) -> None:
        for partition in tuple(self.owned):
            with suppress(Exception):
                await partition.release()

        def leave() -> None:
            self._broker.members.pop(self, None)
            self._broker.aside.pop(self, None)
            for number, token in self._tokens.items():
                if self._broker.owner_is(number, token):
                    del self._broker.leases[number]

        with suppress(BrokerError):  # it runs out by itself
            await self._call("leave", leave)
        self.disconnected = True

    async def _call(self, name: str, effect: Callable[[], R]) -> R:
        return await self._broker.call(name, effect, self)


class FakeDeadLetterEnd(DeadLetterEnd):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._address: str | None = None

    async def count(self) -> int:
        return len(self._broker.all_dead)

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        for dead in await self._broker.call("dead_letters", lambda: list(self._broker.all_dead)):
            yield dead

    async def remove(self, all_dead: Sequence[DeadLetterMessage]) -> None:
        def forget() -> None:
            gone = {id(dead) for dead in all_dead}
            kept = [dead for dead in self._broker.all_dead if id(dead) not in gone]
            self._broker.all_dead[:] = kept

        await self._broker.call("remove", forget)

    async def open_answers(self) -> str | None:
        if not self._broker.tells_outcomes:
            return None
        self._address = f"answers-{id(self)}"
        await self._broker.call(
            "open_answers", lambda: self._broker.answers.update({self._address or "": []})
        )
        return self._address

    async def answers(self) -> list[bytes]:
        address = self._address
        assert address is not None

        def take() -> list[bytes]:
            arrived, self._broker.answers[address] = self._broker.answers[address], []
            return arrived

        until = now() + 1.0
        while not (arrived := await self._broker.call("answers", take)) and now() < until:
            await asyncio.sleep(0.05)
        return arrived

    async def disconnect(self) -> None:
        if self._address is not None:
            self._broker.answers.pop(self._address, None)


def now() -> float:
    return asyncio.get_running_loop().time()
