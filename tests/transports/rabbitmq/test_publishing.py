"""Publishing: in order, confirmed, and honest about what was not."""

import asyncio
import logging

import pytest
from aiormq.abc import DeliveredMessage

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.confirming import Outgoing
from tests.support.brokers.proxy import Proxy
from tests.support.ports import free_port
from tests.transports.rabbitmq.rig import RabbitRig, outlet
from tests.transports.rig import eventually, names, own, read, until


def _numbered(first: int, last: int) -> list[bytes]:
    return [b"%06d" % number for number in range(first, last)]


async def test_messages_are_persistent_and_have_ids_of_their_own(rig: RabbitRig) -> None:
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


async def test_a_deleted_queue_or_exchange_is_declared_again_and_used(
    rig: RabbitRig, caplog: pytest.LogCaptureFixture
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
    async with rig.channel() as channel:
        await channel.exchange_delete(f"{rig.prefix}.operations")
    with pytest.raises(BrokerError):
        await end.publish(0, [b"third"])
    await end.publish(0, [b"third"])
    assert names(await read(await own(rig.consuming()), 3)) == ["first", "second", "third"]


async def test_a_failure_says_how_many_at_the_head_are_confirmed(rig: RabbitRig) -> None:
    end = rig.publishing()
    await end.partitions()
    batch = [Outgoing("", f"{rig.prefix}.{name}", name.encode()) for name in ("0", "1", "nowhere", "0")]
    with pytest.raises(BrokerError) as caught:
        await outlet(end).publish(batch)
    assert caught.value.confirmed == 2


async def test_a_silent_broker_costs_one_timeout(rig: RabbitRig) -> None:
    async with Proxy.before(rig.url) as proxy:
        end = rig.publishing("timeout=0.5", url=proxy.url(rig.url))
        await end.publish(0, [b"before"])
        proxy.swallow()
        async with asyncio.timeout(12):
            with pytest.raises(BrokerError, match=r"0\.5 s") as caught:
                await end.publish(0, [b"during"])
            assert caught.value.confirmed == 0
            with pytest.raises(BrokerError):
                await end.publish(0, [b"during"])
        await proxy.normal()
        await end.publish(0, [b"after"])
        proxy.swallow()
        async with asyncio.timeout(12):
            await end.disconnect()


async def test_replies_in_single_bytes_are_replies(rig: RabbitRig) -> None:
    async with Proxy.before(rig.url) as proxy:
        proxy.slice_replies()
        end = rig.publishing(url=proxy.url(rig.url))
        await end.publish(0, _numbered(0, 50))
        await end.disconnect()
    assert len(await read(await own(rig.consuming()), 50)) == 50


async def test_an_abandoned_publish_leaves_the_channel_usable(rig: RabbitRig) -> None:
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


async def test_a_host_that_never_answers_costs_all_who_wait_one_timeout() -> None:
    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0) as mute:
        url = f"amqp://127.0.0.1:{mute.sockets[0].getsockname()[1]}/"
        end = RabbitBroker(f"{url}?timeout=3").publishing()
        async with asyncio.timeout(11):  # one after the other they would take 12 s
            answers = await asyncio.gather(
                *(end.publish(number, [b"x"]) for number in range(4)), return_exceptions=True
            )
        assert all(isinstance(answer, BrokerError) for answer in answers)
        other = RabbitBroker(f"{url}?timeout=60").consuming()
        waiting = asyncio.create_task(other.fleet())
        await eventually(lambda: len(writers) >= 2, "the connection")
        async with asyncio.timeout(12):
            await other.disconnect()
        with pytest.raises(BrokerError, match="closed"):
            await waiting
        await end.disconnect()
        for writer in writers:
            writer.close()


async def test_the_next_host_is_tried(rig: RabbitRig) -> None:
    url = rig.url.replace("127.0.0.1:", f"127.0.0.1:{free_port()},127.0.0.1:")
    for _ in range(4):
        end = rig.publishing(url=url)
        await end.publish(0, [b"x"])
        await end.disconnect()
