"""Nothing of the driver's gets out but ``BrokerError``."""

import asyncio
import inspect
import logging

import aio_pika.exceptions
import aiormq
import aiormq.exceptions
import pamqp.exceptions
import pytest
from aiormq.abc import DeliveredMessage
from pamqp import commands
from pamqp.header import ContentHeader

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.connector import steady_clock
from prefactor_rabbitmq.errors import DRIVER_ERRORS, describe, reported
from prefactor_rabbitmq.link import Link
from tests.support.ports import free_port


def test_every_error_of_the_driver_is_mapped() -> None:
    for module in (aio_pika.exceptions, aiormq.exceptions, pamqp.exceptions):
        classes = [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, BaseException)
        ]
        assert len(classes) > 5
        assert [error for error in classes if not issubclass(error, DRIVER_ERRORS)] == []


async def test_errors_become_broker_errors_and_mistakes_stay_mistakes(subtests: pytest.Subtests) -> None:
    for error in (
        aiormq.exceptions.ChannelClosed(404, "no queue"),
        aiormq.exceptions.ChannelInvalidStateError("closed"),
        pamqp.exceptions.PAMQPException("frame"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 7),
        RuntimeError("closed"),
        Exception(),
    ):
        with subtests.test(error=error), pytest.raises(BrokerError, match="reading"), reported("reading"):
            raise error
    for mistake in (TypeError("x"), KeyError("x"), AssertionError("x")):
        with subtests.test(mistake=mistake), pytest.raises(type(mistake)), reported("reading"):
            raise mistake


async def test_a_cancellation_goes_through_and_one_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(BrokerError, match="lost"), reported("reading"):
        raise asyncio.CancelledError

    async def wait() -> None:
        with reported("reading"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_payloads_are_not_described() -> None:
    returned = commands.Basic.Return(312, "NO_ROUTE", "", "key")
    message = DeliveredMessage(returned, ContentHeader(), b"payload", None)  # type: ignore[arg-type]
    for error in (
        aiormq.exceptions.PublishError(message, returned),
        aiormq.exceptions.DeliveryError(message, returned),
    ):
        assert "payload" not in describe(error)
        with pytest.raises(BrokerError) as caught, reported("publishing"):
            raise error
        assert caught.value.__cause__ is None
        assert "payload" not in str(caught.value)


async def test_what_the_driver_logs_of_our_connections_is_for_those_who_debug_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"

    def said() -> int:
        return sum(record.name.startswith("aiormq") for record in caplog.records)

    async def fail() -> None:
        with pytest.raises(BrokerError):
            await Link("the broker", 2.0, 5.0, steady_clock).open(url, "test", 5.0)

    await fail()
    assert said() == 0
    with pytest.raises(aiormq.exceptions.AMQPConnectionError):
        await aiormq.connect(url)
    assert said() == 1, "somebody else's"
    with caplog.at_level(logging.DEBUG, "aiormq.connection"):
        await fail()
    assert said() > 1, "for those who debug it"
