"""Outages in the log, in virtual time: a line at the beginning and one at the end, however much is tried."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from prefactor_core.broker.assignment import Rebalance
from prefactor_core.broker.driver import Loss
from prefactor_core.exceptions import BrokerError
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage, describe
from prefactor_core.queue.base import Delivery
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.engine.setups import Batches, handle_soon, put_all, queue_on, retry_of, started, working
from tests.engine.setups import fill as fill_partition
from tests.engine.virtual import virtual
from tests.support.fake_broker import FakeBroker, FakePartition, Fault
from tests.support.operations import dice

PARTITIONS = 16
AWAY = 600.0


def fill(broker: FakeBroker, count: int, first: int = 0) -> None:
    """Have operations arrive in every partition."""
    for partition in range(broker.count):
        fill_partition(broker, partition, count, first)


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


@pytest.mark.parametrize("outages", [1, 3])
@virtual
async def test_a_worker_says_little_of_a_long_outage(caplog: pytest.LogCaptureFixture, outages: int) -> None:
    """The executor disposes, every partition reads, and the share is kept: all of it fails, for minutes."""
    caplog.set_level(logging.INFO)
    broker = FakeBroker(PARTITIONS, lease=10.0)
    async with working(broker):
        for number in range(outages):
            fill(broker, 40, 40 * number)
            await asyncio.sleep(1.2)
            assert 0 < broker.unsettled < 40 * PARTITIONS, "there is load"
            broker.unavailable = True
            await asyncio.sleep(AWAY)
            broker.unavailable = False
            await asyncio.sleep(60)
            assert broker.unsettled == 0
    assert tracebacks(caplog) == 0
    # By the broker's users and by the executor, each: it begins and it ends; and partitions, lost and gained.
    assert len(caplog.records) <= 2 + 6 * outages
    assert sum("is unavailable" in record.getMessage() for record in caplog.records) == outages
    # Each of the two says so once an outage.
    assert sum("works again" in record.getMessage() for record in caplog.records) == 2 * outages


@virtual
async def test_a_partition_that_fails_while_all_others_work_is_one_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The executor's attempts are told to the broker's own outage where it is given that."""
    caplog.set_level(logging.WARNING)
    broker = FakeBroker(PARTITIONS)
    queue = queue_on(broker)
    executor = TaskExecutor(queue, handle_soon, 8, retry=retry_of(), outage=queue.consumer.outage)
    executor.start()
    await asyncio.sleep(5)
    broker.fail("settle", *[Fault()] * 100)
    fill(broker, 1)
    await asyncio.sleep(300)
    assert broker.unsettled == 0
    await executor.stop(10)
    await queue.disconnect()
    texts = caplog.messages
    assert [("is unavailable" in text, "works again" in text) for text in texts] == [
        (True, False),
        (False, True),
    ]
    assert "100 failed attempts" in texts[1]


@pytest.mark.parametrize("call", ["settle", "read", "fleet", "acquire", "begin", "withdraw"])
@virtual
async def test_a_mistake_of_the_drivers_has_one_traceback_an_outage(
    caplog: pytest.LogCaptureFixture, call: str
) -> None:
    caplog.set_level(logging.WARNING)
    broker = FakeBroker(4)
    broker.isolated = set(range(4)) if call in {"begin", "withdraw"} else set()
    async with working(broker):
        for number in range(2):
            broker.fail(call, *[Fault(error=ValueError("a mistake"))] * 20)
            fill(broker, 10, 10 * number)
            if call == "acquire":
                for partition in range(4):
                    broker.lose(partition)
            await asyncio.sleep(300)
            assert not broker.scripts[call], "all were made"
            assert broker.unsettled == 0
    assert tracebacks(caplog) == 2, "once for each outage"


class Broken(InMemoryQueue[int]):
    """A third party's queue, which fails in a row whatever it is asked."""

    def __init__(self, error: Exception, failures: int) -> None:
        super().__init__()
        self.error = error
        self.failures = failures

    async def receive(self, max_items: int, max_bytes: int) -> list[Any]:
        self._fail()
        return await super().receive(max_items, max_bytes)

    async def settle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Delivery[Any]]:
        self._fail()
        return await super().settle(deliveries)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error


@pytest.mark.parametrize(
    ("error", "traced"), [(OSError("no network"), 0), (BrokerError("gone"), 0), (KeyError("oh"), 1)]
)
@virtual
async def test_a_queue_that_fails_is_told_once(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: int
) -> None:
    caplog.set_level(logging.WARNING)
    queue = Broken(error, 30)
    executor = TaskExecutor(queue, Batches(), retry=RetryPolicy(cap=2.0, rng=dice(1)))
    executor.start()
    await put_all(queue, range(50))
    await asyncio.sleep(120)
    assert (queue.failures, executor.prefetched, executor.account.settled) == (0, 0, 50)
    await executor.stop(10)
    texts = caplog.messages
    assert len(texts) == 2
    assert texts[0].startswith("the queue fails, and is tried again: ")
    assert texts[1].startswith("the queue works again after ")
    assert tracebacks(caplog) == traced


@pytest.mark.parametrize("who", ["handler", "observer"])
@virtual
async def test_what_others_get_wrong_every_time_is_told_once(
    caplog: pytest.LogCaptureFixture, who: str
) -> None:
    caplog.set_level(logging.ERROR)

    def fail(*_: object) -> None:
        raise KeyError("a mistake")

    queue, executor = await started(
        Batches(*[KeyError("a mistake")] * (1_000 if who == "handler" else 0)),
        retry=RetryPolicy(3, base=0.1, rng=dice(1)),
        observe=fail if who == "observer" else None,
    )
    for number in range(200):
        await queue.put(number)
        await asyncio.sleep(0.01)
    await asyncio.sleep(10)
    assert executor.prefetched == 0
    await executor.stop(10)
    assert tracebacks(caplog) == 1


# -- the class itself


def outage_of_it(caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(logging.getLogger("test"), "it", state=lambda: "7 wait")


@virtual
async def test_it_is_over_once_all_who_failed_got_through(caplog: pytest.LogCaptureFixture) -> None:
    outage = outage_of_it(caplog)
    for second in range(10):
        outage.failed(second % 2, BrokerError("no route"))
        await asyncio.sleep(1)
    outage.worked(0)
    await asyncio.sleep(60)
    assert caplog.messages == ["it is unavailable: no route"], "one still fails"
    outage.worked(1)
    await asyncio.sleep(1.9)
    outage.worked(1)
    outage.worked("somebody else")
    assert len(caplog.messages) == 1
    await asyncio.sleep(0.2)
    assert caplog.messages[1:] == ["it works again after 70 s and 10 failed attempts; 7 wait"]
    outage.failed(0, BrokerError("again"))
    assert caplog.messages[2:] == ["it is unavailable: again"]
    outage.close()
    assert len(caplog.messages) == 3, "nobody has got through"


@virtual
async def test_what_works_and_fails_by_turns_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage = outage_of_it(caplog)
    for _ in range(100):
        outage.failed("one", BrokerError(""))
        await asyncio.sleep(0.5)
        outage.worked("one")
        await asyncio.sleep(1.0)
    outage.close()
    outage.close()
    await asyncio.sleep(10)
    assert caplog.messages == [
        "it is unavailable: BrokerError",
        "it works again after 149 s and 100 failed attempts; 7 wait",
    ]


@virtual
async def test_a_mistake_in_an_outage_that_had_begun_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    outage = outage_of_it(caplog)
    outage.failed("one", BrokerError("no route"))
    for _ in range(5):
        outage.failed("one", ValueError("secret words"))
    assert caplog.messages == ["it is unavailable: no route", "it is unavailable: ValueError"]
    assert tracebacks(caplog) == 1


@virtual
async def test_what_fails_once_and_is_not_tried_again_hides_no_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A withdrawal that fails is left to the partition's next owner; the outage an hour later is another."""
    caplog.set_level(logging.WARNING)
    broker = FakeBroker(2)
    broker.isolated = {0, 1}
    broker.fail("withdraw", Fault())
    async with working(broker):
        fill(broker, 1)
        await asyncio.sleep(30)
        broker.isolated = set()
        fill(broker, 20, 1)
        await asyncio.sleep(3_600)
        assert not broker.scripts["withdraw"], "it failed"
        assert broker.unsettled == 0
        broker.unavailable = True
        await asyncio.sleep(AWAY)
        broker.unavailable = False
        await asyncio.sleep(60)
    texts = caplog.messages
    assert sum("is unavailable" in text for text in texts) == 2
    assert all("works again after" in text for text in texts[1::2] if "rebalance" not in text)
    assert not any(f"after {seconds} s" in text for text in texts for seconds in range(3_600, 6_000))


SERIOUS = Loss("its queue was deleted with all that it held", serious=True)


@pytest.mark.parametrize("how", ["in a drain", "while it is given up"])
@virtual
async def test_what_is_lost_with_a_partition_is_said_also_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(FakePartition, "loss", SERIOUS)

    async def slow(_: Operation) -> None:
        await asyncio.sleep(8)

    broker = FakeBroker(2)
    queue = queue_on(broker)
    executor = TaskExecutor(queue, slow, 4, retry=retry_of())
    executor.start()
    fill(broker, 2)
    await asyncio.sleep(6)
    assert queue.consumer.owned == [0, 1]
    stopping = asyncio.create_task(executor.stop(25)) if how == "in a drain" else None
    if stopping is None:
        queue.consumer.stand_aside("its token is refused")
    await asyncio.sleep(1.2)
    for partition in range(2):
        broker.lose(partition)
    for end in broker.ends:
        for owned in end.owned:
            owned._ended = True
    await asyncio.sleep(30)
    await (stopping or executor.stop(25))
    await queue.disconnect()
    told = [record for record in caplog.records if SERIOUS.reason in record.getMessage()]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert "[0-1]" in told[0].getMessage()
    assert "released" not in caplog.text


@virtual
async def test_a_serious_loss_is_not_forgotten_for_a_small_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rebalance = Rebalance("here", asyncio.get_running_loop().time)
    for loss in (SERIOUS, Loss("its lease ran out")):
        rebalance.lost(3, loss)
        rebalance.gained(3)
    await asyncio.sleep(10)
    rebalance.look(8, complete=True)
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert SERIOUS.reason in told.getMessage()


@virtual
async def test_a_partition_that_is_lost_is_no_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    begin = FakePartition.begin

    async def lost_before(partition: FakePartition, message: Any) -> bool:
        if not lost:
            lost.append(True)
            broker.lose(partition.number)
        return await begin(partition, message)

    lost: list[bool] = []
    monkeypatch.setattr(FakePartition, "begin", lost_before)
    broker = FakeBroker(1)

    broker.isolated = {0}
    async with working(broker):
        await asyncio.sleep(5)
        fill(broker, 1)
        await asyncio.sleep(60)
        assert broker.unsettled == 0
    assert lost
    assert "rebalance of" in caplog.text
    assert "is unavailable" not in caplog.text


def test_what_a_broker_says_is_one_line() -> None:
    loud = describe(BrokerError("no\n2026-01-01 ERROR forged \x1b[31m" + "x" * 5_000))
    assert loud.isprintable()
    assert len(loud) <= 1_000


@virtual
async def test_garbage_is_said_once_with_how_much_there_was(caplog: pytest.LogCaptureFixture) -> None:
    """Two thousand messages that cannot be read, each with a reason of its own."""
    caplog.set_level(logging.WARNING)
    broker = FakeBroker(4)
    async with working(broker) as (queue, _):
        for number in range(2_000):
            broker.put(number % 4, b'{"v":%d}' % (number + 2))
        while queue.consumer.dead_lettered_unread < 2_000:
            await asyncio.sleep(1)
    lines = [text for text in caplog.messages if "dead-lettered" in text]
    assert 1 <= len(lines) <= 10
    assert "dead-lettered: unread, from partition" in lines[0]
