"""Keeps what the driver logs of our connections to those who debug it.

It logs each connection that could not be made, and a traceback for each that was lost: while a broker is
unavailable that is most of an agent's log. The same comes to us as errors, and is told once an outage.
Connections of anybody else's in the process are logged as ever.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_OURS: Final[ContextVar[bool]] = ContextVar("prefactor-rabbitmq-connection", default=False)
_LOGGERS: Final = ("aiormq.connection", "aiormq.channel", "asyncio")
_OF_ASYNCIO: Final = "socket.send() raised exception."
"""What asyncio says of each write to a connection that is lost."""


class _OnlyForDebugging(logging.Filter):
    """Drops what is logged of our connections, unless that logger is set to debug."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if not _OURS.get() or (record.name == "asyncio" and record.msg != _OF_ASYNCIO):
            return True
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_FILTER: Final = _OnlyForDebugging()


@contextmanager
def hushed() -> Iterator[None]:
    """Drop what the driver logs in the block, and in all tasks and callbacks that begin there."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # a second time changes nothing
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)
