"""The lines of a worker's log are the worker's own, whatever stands in them."""

import json
import logging
import re

from prefactor_worker.logs import JsonFormatter, LineFormatter

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (WARNING|ERROR  ) .* \[\d+\]")
FORGED = "2026-01-01 00:00:00 ERROR   all is lost [1]"
LOUD = ["\n", "\r", "\r\n", "\x00", "\x1b[2J", "\x85", "\x9b31m", "\u2028", "\u202e", "\ud800"]


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    told = (type(error), error, error.__traceback__) if error is not None else None
    level = logging.WARNING if error is None else logging.ERROR
    return logging.LogRecord("prefactor_core.queue", level, "a.py", 1, message, arguments, told)


def test_a_message_is_one_line() -> None:
    for loud in LOUD:
        line = LineFormatter().format(record("dead-lettered: %s", f"key{loud}{FORGED}"))
        assert LINE.fullmatch(line), repr(loud)
        assert line.isprintable(), repr(loud)
        assert f"dead-lettered: key\\{loud.encode('unicode_escape').decode()[1:]}{FORGED}" in line, repr(loud)
        line = JsonFormatter().format(record("dead-lettered: %s", f"größe{loud}{FORGED}"))
        assert line.isprintable(), repr(loud)
        assert "größe" in line
        assert json.loads(line)["message"] == f"dead-lettered: größe{loud}{FORGED}", repr(loud)


def test_a_message_that_is_quiet_stays_as_it_is() -> None:
    line = LineFormatter().format(record("took partitions %s of größe", [1, 2]))
    assert LINE.fullmatch(line)
    assert "WARNING took partitions [1, 2] of größe [" in line


def test_a_traceback_cannot_pass_for_other_lines() -> None:
    try:
        raise ValueError(f"quoted:\n{FORGED}\x1b[2J\r{FORGED}")
    except ValueError as error:
        first, *others = LineFormatter().format(record("the handler failed", error=error)).splitlines()
    assert LINE.fullmatch(first)
    assert others[0] == "  Traceback (most recent call last):"
    assert f"  {FORGED}\\x1b[2J" in others
    assert all(line.startswith("  ") and line.isprintable() for line in others)
