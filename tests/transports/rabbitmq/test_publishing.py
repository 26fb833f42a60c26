"""Publishing: in order, confirmed, and honest about what was not."""

import asyncio
import logging

import pytest
from aiormq.abc import DeliveredMessage

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from tests.support.brokers.ports import lasting_port
from tests.support.brokers.proxy import Proxy
from tests.transports.rabbitmq.rig import Rig, cut, names, outlet, own, read, until


def _numbered(first: int, last: int) -> list[bytes]:
    return [b"%06d" % number for number in range(first, last)]


async def test_batches_of_one_partition_arrive_in_order(rig: Rig) -> None:
    end = rig.publishing()
    for first in range(0, 2_000, 500):
        await end.publish(0, _numbered(first, first + 500))
    assert await rig.drain() == _numbered(0, 2_000)


async def test_batches_of_many_partitions_at_once_keep_their_orders(rig: Rig) -> None:
    end = rig.publishing(rig.broker(partitions=4))

    async def publish(partition: int) -> None:
        for first in range(0, 600, 100):
            await end.publish(
                partition, [b"%d-" % partition + body * 50 for body in _numbered(first, first + 100)]
            )

    await asyncio.gather(*(publish(number) for number in range(4)))
    for number in range(4):
        assert await rig.drain(number) == [b"%d-" % number + body * 50 for body in _numbered(0, 600)]


async def test_bodies_of_every_size_come_through(rig: Rig) -> None:
    sizes = [0, 1, 131_063, 131_064, 131_065, 262_128, 1 << 20]
    end = rig.publishing()
    await end.publish(0, [bytes([index]) * size for index, size in enumerate(sizes)])
    messages = await read(await own(rig.consuming()), len(sizes))
    assert [message.data for message in messages] == [bytes([i]) * size for i, size in enumerate(sizes)]


async def test_messages_are_persistent_and_have_ids_of_their_own(rig: Rig) -> None:
    await rig.publish(["a", "a"])
    async with rig.channel() as channel:
        got: asyncio.Queue[tuple[int | None, str | None, str | None]] = asyncio.Queue()

        async def take(message: DeliveredMessage) -> None:
            properties = message.header.properties
            await got.put((properties.delivery_mode, properties.content_type, properties.message_id))

        await channel.basic_consume(f"{rig.prefix}.0", take)
        first, second = await got.get(), await got.get()
    assert first[:2] == second[:2] == (2, "application/json")
    assert first[2] != second[2]


async def test_a_deleted_queue_is_returned_declared_and_used(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    end = rig.publishing()
    await end.publish(0, [b"lost"])
    await rig.delete("0")
    with pytest.raises(BrokerError, match="routed") as caught:
        await end.publish(0, [b"first", b"second"])
    assert caught.value.confirmed == 0
    assert any(record.levelno == logging.ERROR and "gone" in record.message for record in caplog.records)
    await end.publish(1, [b"elsewhere"])
    await end.publish(0, [b"first", b"second"])
    assert names(await read(await own(rig.consuming()), 2)) == ["first", "second"]


async def test_a_deleted_exchange_is_declared_again(rig: Rig) -> None:
    end = rig.publishing()
    await end.publish(0, [b"kept"])
    async with rig.channel() as channel:
        await channel.exchange_delete(f"{rig.prefix}.operations")
    with pytest.raises(BrokerError):
        await end.publish(0, [b"more"])
    await end.publish(0, [b"more"])
    assert names(await read(await own(rig.consuming()), 2)) == ["kept", "more"]


async def test_after_a_cut_the_rest_follows_from_the_first_unconfirmed(rig: Rig) -> None:
    """As the shared engine does it: one batch under way, and again from what was not confirmed."""
    end = rig.publishing()
    bodies = _numbered(0, 6_000)
    sent = cuts = 0

    async def disturb() -> None:
        nonlocal cuts
        while sent < len(bodies):
            await asyncio.sleep(0.03)
            if cuts < 5:
                cut(end)
                cuts += 1

    await end.partitions()
    disturber = asyncio.create_task(disturb())
    failures = 0
    while sent < len(bodies):
        batch = bodies[sent : sent + 300]
        try:
            await end.publish(0, batch)
            sent += len(batch)
        except BrokerError as error:
            sent += error.confirmed
            failures += 1
    await disturber
    assert cuts == 5
    assert failures
    assert list(dict.fromkeys(await rig.drain())) == bodies


async def test_a_silent_broker_costs_one_timeout(rig: Rig) -> None:
    async with Proxy.before(rig.url) as proxy:
        end = rig.publishing(rig.broker(url=proxy.url(rig.url), timeout=0.5))
        await end.publish(0, [b"before"])
        proxy.swallow()
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(BrokerError, match=r"0\.5 s") as caught:
            await end.publish(0, [b"during"])
        assert caught.value.confirmed == 0
        with pytest.raises(BrokerError):
            await end.publish(0, [b"during"])
        assert loop.time() - start < 4.5
        await proxy.normal()
        await end.publish(0, [b"after"])
        start = loop.time()
        proxy.swallow()
        await end.disconnect()
        assert loop.time() - start < 5


async def test_replies_in_single_bytes_are_replies(rig: Rig) -> None:
    async with Proxy.before(rig.url) as proxy:
        proxy.slice_replies()
        end = rig.publishing(rig.broker(url=proxy.url(rig.url)))
        await end.publish(0, _numbered(0, 50))
        await end.disconnect()
    assert len(await read(await own(rig.consuming()), 50)) == 50


async def test_an_abandoned_publish_leaves_the_channel_usable(rig: Rig) -> None:
    end = rig.publishing()
    await end.partitions()
    for _ in range(5):
        task = asyncio.create_task(end.publish(0, _numbered(0, 500)))
        await asyncio.sleep(0.003)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await end.publish(1, [b"x"] * 10)

    async def forgotten() -> bool:
        confirming = outlet(end)._channel
        assert confirming is not None
        channel = confirming._channel
        return not channel.message_id_delivery_tag and not channel.confirmations

    await until(forgotten, "all confirms")
    assert len(await read(await own(rig.consuming(), 1), 10)) == 10


async def test_nobody_there() -> None:
    for url in (f"amqp://127.0.0.1:{lasting_port()}/", f"amqp://127.0.0.1:{lasting_port()},127.0.0.1:1/"):
        broker = RabbitBroker(url)
        end = broker.publishing()
        with pytest.raises(BrokerError) as caught:
            await end.publish(0, [b"x"])
        assert caught.value.confirmed == 0
        await end.disconnect()
        with pytest.raises(BrokerError):
            await broker.check()


async def test_a_host_that_never_answers_costs_all_who_wait_one_timeout() -> None:
    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0) as mute:
        port = mute.sockets[0].getsockname()[1]
        end = RabbitBroker(f"amqp://127.0.0.1:{port}/?timeout=1").publishing()
        loop = asyncio.get_running_loop()
        start = loop.time()
        answers = await asyncio.gather(*(end.publish(n, [b"x"]) for n in range(4)), return_exceptions=True)
        assert all(isinstance(answer, BrokerError) for answer in answers)
        assert loop.time() - start < 3
        other = RabbitBroker(f"amqp://127.0.0.1:{port}/?timeout=60").consuming()
        waiting = asyncio.create_task(other.fleet())
        await until(lambda: _accepted(writers), "the connection")
        start = loop.time()
        await other.disconnect()
        assert loop.time() - start < 2
        with pytest.raises(BrokerError, match="closed"):
            await waiting
        await end.disconnect()
        for writer in writers:
            writer.close()


async def _accepted(writers: list[asyncio.StreamWriter]) -> bool:
    return len(writers) >= 2


async def test_the_next_host_is_tried(rig: Rig) -> None:
    url = rig.url.replace("127.0.0.1:", f"127.0.0.1:{lasting_port()},127.0.0.1:")
    for _ in range(4):
        end = rig.publishing(rig.broker(url=url))
        await end.publish(0, [b"x"])
        await end.disconnect()
