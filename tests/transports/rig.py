"""What the tests of both transports stand on: ends under a prefix, and waiting for what they say."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from prefactor_core.broker.driver import (
    Broker,
    ConsumingEnd,
    DeadLetterEnd,
    DeadLetterMessage,
    End,
    Message,
    Partition,
    PublishingEnd,
)
from prefactor_core.exceptions import BrokerError

E = TypeVar("E", bound=End)
T = TypeVar("T")
B = TypeVar("B", bound=Broker)

Clock = Callable[[], float]
PLENTY = 1 << 23


class Rig(ABC, Generic[B]):
    """Makes brokers under one prefix, and closes their ends.

    Args:
        url: The server.
        prefix: Of all names.
    """

    attempts_log: str
    """What ``left`` calls the record of attempts in partition 0."""
    in_isolation = 10
    """How many messages a reading asks for; where the broker does not see to it, only one is asked for."""
    further_host = ""
    """What a URL takes after its first host, where it takes several."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._ends: list[End] = []

    @abstractmethod
    def broker(self, options: str = "", *, url: str | None = None, clock: Clock | None = None) -> B:
        """Return a broker: ``broker("timeout=1&partitions=4")``."""

    @abstractmethod
    async def crash(self, owner: ConsumingEnd) -> None:
        """Do what death does to the owner of partition 0."""

    @abstractmethod
    async def left(self) -> set[str]:
        """Return the names of what is on the server, without the prefix."""

    def publishing(self, options: str = "", *, url: str | None = None) -> PublishingEnd:
        return self.keep(self.broker(options, url=url).publishing())

    def consuming(
        self, options: str = "", *, url: str | None = None, clock: Clock | None = None
    ) -> ConsumingEnd:
        return self.keep(self.broker(options, url=url, clock=clock).consuming())

    def dead_letters(self, options: str = "", *, url: str | None = None) -> DeadLetterEnd:
        return self.keep(self.broker(options, url=url).dead_letters())

    def keep(self, end: E) -> E:
        """Have ``disconnect`` close an end, too."""
        self._ends.append(end)
        return end

    async def publish(self, names: Iterable[str], partition: int = 0) -> None:
        """Publish through an end of its own."""
        end = self.broker().publishing()
        try:
            await end.publish(partition, [name.encode() for name in names])
        finally:
            await end.disconnect()

    async def crash_often(self, times: int, count: int) -> None:
        """Let owners of partition 0 crash with so many messages in hand."""
        for _ in range(times):
            end = self.consuming()
            await read(await own(end), count)
            await self.crash(end)

    async def isolated(self) -> tuple[ConsumingEnd, Partition, Message]:
        """Own partition 0 as another process, and have the first message of it, alone."""
        end = self.consuming()
        owner, (message,) = await first(end, self.in_isolation)
        assert owner.isolated
        return end, owner, message

    async def all_dead(self) -> list[DeadLetterMessage]:
        """Return all dead letters, through an end of its own."""
        async with self.dead_letters() as end:
            return [dead async for dead in end.read()]

    async def disconnect(self) -> None:
        for end in self._ends:
            await end.disconnect()


async def until(check: Callable[[], Awaitable[T | None]], what: str, seconds: float = 180.0) -> T:
    """Ask again and again until the answer is true; a broker that is unavailable is no answer."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while True:
        try:
            found = await check()
        except BrokerError:
            found = None
        if found:
            return found
        if clock() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    """Ask again and again until a condition that nobody has to wait for is true."""

    async def check() -> bool:
        return bool(condition())

    await until(check, what, seconds)


async def persistently(call: Callable[[], Awaitable[object]], seconds: float = 180.0) -> int:
    """Repeat what fails with ``BrokerError`` until it works; return how often it failed."""
    failures = -1

    async def works() -> bool:
        nonlocal failures
        failures += 1
        await call()
        return True

    await until(works, "a broker that is back", seconds)
    return failures


async def own(end: ConsumingEnd, number: int = 0) -> Partition:
    """Acquire a partition as soon as nobody else has it."""
    return await until(lambda: end.acquire(number, 100), f"partition {number}")


async def read(partition: Partition, count: int) -> list[Message]:
    """Read until there are so many messages."""
    found: list[Message] = []
    async with asyncio.timeout(180):
        while len(found) < count:
            found += await partition.read(count - len(found), PLENTY)
    return found


async def first(end: ConsumingEnd, count: int = 10) -> tuple[Partition, list[Message]]:
    """Own partition 0 and read, again if what earlier owners told changes what may be read."""

    async def attempt() -> tuple[Partition, list[Message]]:
        owner = await own(end)
        while not (messages := await owner.read(count, PLENTY)):
            pass
        return owner, messages

    async with asyncio.timeout(180):
        return await until(attempt, "messages")


def is_held(owner: Partition) -> bool:
    """Ask anew: nothing is concluded from what it was before."""
    return owner.held


def is_isolated(owner: Partition) -> bool:
    return owner.isolated


def names(messages: Sequence[Message]) -> list[str]:
    return [message.data.decode() for message in messages]
