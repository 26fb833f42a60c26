"""The one place where errors of the driver become ``BrokerError``, and where its logs are kept back."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from aio_pika.exceptions import MessageProcessError
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.exceptions import PAMQPException

from prefactor_core.transport import BrokerError

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

_OURS: Final[ContextVar[bool]] = ContextVar("prefactor-rabbitmq-connection", default=False)
_LOGGERS: Final = ("aiormq.connection", "aiormq.channel", "asyncio")
_OF_ASYNCIO: Final = "socket.send() raised exception."
"""What asyncio says of each write to a connection that is lost."""


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


@contextmanager
def reported(doing: str, explain: Callable[[BaseException], str] = describe) -> Iterator[None]:
    """Let nothing but ``BrokerError``, cancellation and programming errors out.

    What the driver logs in the block, and in all tasks and callbacks that begin there, is shown only to those
    who debug it.

    Args:
        doing: What was tried, and where, for the message.
        explain: Returns what an error means, where more is known than it says.

    Raises:
        BrokerError: The driver failed inside the block.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # a second time changes nothing
    token = _OURS.set(True)
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
        raise BrokerError(f"{doing}: {explain(asyncio.CancelledError())}") from None
    except Exception as error:
        if not isinstance(error, DRIVER_ERRORS) and type(error) not in _LOOSE_ERRORS:
            raise
        # Without the chain: a delivery error holds the message, and a payload has no place in a traceback.
        raise BrokerError(f"{doing}: {explain(error)}") from None
    finally:
        _OURS.reset(token)


class _OnlyForDebugging(logging.Filter):
    """Drops what is logged of our connections, unless that logger is set to debug.

    The driver logs each connection that could not be made, and a traceback for each that was lost: while a
    broker is unavailable that is most of an agent's log. The same comes to us as errors, and is told once an
    outage. Connections of anybody else's in the process are logged as ever.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if not _OURS.get() or (record.name == "asyncio" and record.msg != _OF_ASYNCIO):
            return True
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_FILTER: Final = _OnlyForDebugging()
