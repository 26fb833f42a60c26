"""Outages in the log: one line when something becomes unavailable, and one when it works again.

Whatever is attempted again and again, by however many tasks, tells one ``Outage`` how its attempts ended.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Final

from prefactor_core.exceptions import TransportError
from prefactor_core.texts import one_line

IN_WORDS: Final = (TransportError, OSError)
"""Errors of a network or of what is behind it: their own words say all, and a traceback adds nothing."""
_QUIET: Final = 2.0
"""Seconds without a failure after which an outage is over; failures that come sooner are part of it."""

_LONGEST: Final = 1_000
"""Characters of an error that are logged: a broker may say anything."""


class Outage:
    """Logs the beginning and the end of each outage of one thing, with the number of failures in between.

    An outage begins with the first failure, and is over once everybody who failed got through, or has ended,
    and nothing has failed for two seconds. An error that is somebody's mistake and no ``TransportError`` or
    ``OSError`` is logged with a traceback, once an outage. The first line says ``name`` and ``begins``; the
    last adds what ``state`` returns.
    """

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        begins: str = "is unavailable",
        state: Callable[[], str] = str,
    ) -> None:
        self._logger = logger
        self._name = name
        self._begins = begins
        self._state = state
        self._failing: set[Hashable] = set()
        self._failures = 0
        self._began = 0.0
        self._ended = 0.0
        self._traced = False
        self._end: asyncio.TimerHandle | None = None

    def failed(self, who: Hashable, error: Exception) -> None:
        """Take note that an attempt of ``who`` failed. The outage lasts until it has worked or ended."""
        self._cancel_end()
        if not self._failures:
            self._began = asyncio.get_running_loop().time()
        self._failing.add(who)
        mistake = not isinstance(error, IN_WORDS)
        if mistake and not self._traced:
            self._traced = True
            self._logger.error("%s %s: %s", self._name, self._begins, describe(error), exc_info=error)
        elif not self._failures:
            self._logger.warning("%s %s: %s", self._name, self._begins, describe(error))
        self._failures += 1

    def worked(self, who: Hashable) -> None:
        """Take note that an attempt of ``who`` worked, or that it makes no more."""
        if who not in self._failing:
            return
        self._failing.remove(who)
        if not self._failing:
            loop = asyncio.get_running_loop()
            self._ended = loop.time()
            self._end = loop.call_later(_QUIET, self._say_end)

    def close(self) -> None:
        """Log now what was to be logged later, and forget the rest: there are no more attempts."""
        if self._end is not None:
            self._cancel_end()
            self._say_end()
        self._failing.clear()
        self._failures = 0
        self._traced = False

    def _cancel_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _say_end(self) -> None:
        self._end = None
        state = self._state()
        self._logger.warning(
            "%s works again after %.0f s and %d failed attempts%s",
            self._name,
            self._ended - self._began,
            self._failures,
            f"; {state}" if state else "",
        )
        self._failures = 0
        self._traced = False


def describe(error: Exception) -> str:
    """Return an error in words; a mistake's own words may quote what is nobody's business."""
    kind = type(error).__name__
    return one_line(str(error) or kind, _LONGEST) if isinstance(error, IN_WORDS) else kind
