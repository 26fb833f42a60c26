"""How a worker's log lines look: one line each, for people or for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

from prefactor_worker.run.settings import LogFormat

_LOGGERS = ("prefactor_worker", "prefactor_core", "prefactor_redis", "prefactor_rabbitmq")


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
        return json.dumps(fields, ensure_ascii=False)


def set_up_logs(log_format: LogFormat, level: str) -> None:
    """Send this project's log lines to stderr, from ``level`` on, and warnings of everybody else's."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s [%(process)d]", "%Y-%m-%d %H:%M:%S")
        )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # It logs a traceback for each lost connection, which our own line says in words.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(level)
