"""The log's lines about dead letters: what a handler says cannot pass for others."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from prefactor_core.execution.disposal import DeadLetterLog
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter
from tests.support.operations import quality


@pytest.mark.parametrize("loud", ["\n", "\r\n", "\x1b[2J", "\u2028", "\x00"])
def test_a_dead_letter_is_one_line(caplog: pytest.LogCaptureFixture, loud: str) -> None:
    operation = replace(quality("a", 1), idempotency_key=f"key{loud}FORGED")
    DeadLetterLog(itertools.count().__next__).write([DeadLetter(operation, f"said:{loud}FORGED")])
    escaped = loud.encode("unicode_escape").decode()
    assert caplog.messages == [f"dead-lettered: record_quality key{escaped}FORGED: said:{escaped}FORGED"]


def test_keys_and_reasons_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    operation = quality("a", 1)
    long = Operation(operation.type, operation.payload, operation.timestamp, "k" * 10_000)
    none = Operation(operation.type, operation.payload, operation.timestamp)
    all_dead: list[DeadLetter[Any]] = [
        DeadLetter(long, "x" * 10_000),
        DeadLetter(none, "short"),
        DeadLetter("text", "other"),
    ]
    DeadLetterLog(itertools.count().__next__).write(all_dead)
    assert caplog.messages == [
        f"dead-lettered: record_quality {'k' * 61}...: {'x' * 997}...",
        "dead-lettered: record_quality None: short",
        "dead-lettered: str None: other",
    ]
