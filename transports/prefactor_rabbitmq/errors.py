"""The one place where errors of the driver become ``BrokerError``."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aio_pika.exceptions import MessageProcessError
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.exceptions import PAMQPException

from prefactor_core.exceptions import BrokerError

DRIVER_ERRORS: Final[tuple[type[Exception], ...]] = (
    AMQPError,
    ChannelInvalidStateError,
    MessageProcessError,
    PAMQPException,
    OSError,  # of the network; TimeoutError and those of TLS are among them
    EOFError,
)
"""What the driver raises on purpose."""

_LOOSE_ERRORS: Final = frozenset({Exception, RuntimeError, StopAsyncIteration})
"""What it raises as it is, without a class of its own, when a connection ends under a call."""


@contextmanager
def reported(doing: str, explain: Callable[[BaseException], str] | None = None) -> Iterator[None]:
    """Let nothing but ``BrokerError``, cancellation and programming errors out.

    Args:
        doing: What was tried, and where, for the message.
        explain: Returns what an error means, where more is known than it says.

    Raises:
        BrokerError: The driver failed inside the block.
    """
    words = explain or describe
    task = asyncio.current_task()
    cancellations = 0 if task is None else task.cancelling()
    try:
        yield
    except BrokerError:
        raise
    except asyncio.CancelledError:
        if task is None or task.cancelling() > cancellations:
            raise
        # The driver ends waits on a lost connection with a cancellation that nobody asked for.
        raise BrokerError(f"{doing}: {words(asyncio.CancelledError())}") from None
    except Exception as error:
        if not isinstance(error, DRIVER_ERRORS) and type(error) not in _LOOSE_ERRORS:
            raise
        # Without the chain: a delivery error holds the message, and a payload has no place in a traceback.
        raise BrokerError(f"{doing}: {words(error)}") from None


def describe(error: BaseException) -> str:
    """Return what happened, in words without payloads."""
    if isinstance(error, PublishError):
        return "the message could not be routed to a queue"
    if isinstance(error, DeliveryError):
        return "the broker did not take the message"
    if isinstance(error, asyncio.CancelledError):
        return "the connection was lost"
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(part) for part in error.args if part is not None)
    return text or type(error).__name__
