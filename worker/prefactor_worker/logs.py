"""How a worker's log lines look: one line each, for people or for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import TypeAlias

from prefactor_core.texts import one_line

_LOGGERS = ("prefactor_worker", "prefactor_core", "prefactor_redis", "prefactor_rabbitmq")
_ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class LineFormatter(logging.Formatter):
    """One line each, whatever the message holds; the lines of a traceback are indented below it.

    So what others have written, and a library quotes, cannot pass for a line of the worker's own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s [%(process)d]", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- the library's name
        """Return the line."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 -- the library's name
        """Return the lines of a traceback."""
        return "\n".join(f"  {one_line(line)}" for line in super().formatException(ei).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the error if there was one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        text = json.dumps(fields, ensure_ascii=False)
        return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def set_up_logs(log_format: LogFormat, level: str) -> None:
    """Send this project's log lines to stderr, from ``level`` on, and warnings of everybody else's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(level)
