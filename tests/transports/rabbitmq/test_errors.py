"""Nothing of the driver's gets out but ``BrokerError``."""

import asyncio
import inspect
from types import ModuleType

import aio_pika.exceptions
import aiormq.exceptions
import pamqp.exceptions
import pytest
from aiormq.abc import DeliveredMessage
from pamqp import commands
from pamqp.header import ContentHeader

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.errors import DRIVER_ERRORS, describe, reported


def _classes(module: ModuleType) -> list[type[BaseException]]:
    return [
        value for _, value in inspect.getmembers(module, inspect.isclass) if issubclass(value, BaseException)
    ]


@pytest.mark.parametrize("module", [aio_pika.exceptions, aiormq.exceptions, pamqp.exceptions])
def test_every_error_of_the_driver_is_mapped(module: ModuleType) -> None:
    classes = _classes(module)
    assert len(classes) > 5
    assert [error for error in classes if not issubclass(error, DRIVER_ERRORS)] == []


@pytest.mark.parametrize(
    "error",
    [
        aiormq.exceptions.ChannelClosed(404, "no queue"),
        aiormq.exceptions.ChannelInvalidStateError("closed"),
        pamqp.exceptions.PAMQPException("frame"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 7),
        RuntimeError("closed"),
        Exception(),
    ],
)
async def test_errors_become_broker_errors(error: Exception) -> None:
    with pytest.raises(BrokerError, match="reading"), reported("reading"):
        raise error


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError("x")])
async def test_mistakes_stay_mistakes(error: Exception) -> None:
    with pytest.raises(type(error)), reported("reading"):
        raise error


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(BrokerError, match="lost"), reported("reading"):
        raise asyncio.CancelledError


async def test_a_real_cancellation_goes_through() -> None:
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
