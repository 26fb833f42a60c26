"""The contract finds the mistakes that it is there for: the example transport with each of them fails."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.sqlite_example import Change, example_tests, install, outcomes

NUMBERED_BEFORE: Final = """
        def number(file: sqlite3.Connection) -> int:
            file.execute("CREATE TABLE IF NOT EXISTS ids AS SELECT 0 AS last")
            add = "UPDATE ids SET last = last + ? RETURNING last"
            (last,) = file.execute(add, (len(batch),)).fetchone()
            return last - len(batch)

        first = 1 + await self._store.write(number)
        await asyncio.sleep(0.005)  # as far as a server is unavailable
        rows = [
            (first + place, self._store.prefix, partition, now(), data)
            for place, data in enumerate(batch)
        ]
        insert = "INSERT INTO operations (id, prefix, partition, at, data) VALUES (?, ?, ?, ?, ?)"
"""
"""Ids are taken in one transaction and become visible in another: higher ones of a neighbour may be first."""

PUBLISHES: Final = "        await self._store.write(lambda file: file.executemany(insert, rows))"
INSERTS: Final = """
        rows = [(self._store.prefix, partition, now(), data) for data in batch]
        insert = "INSERT INTO operations (prefix, partition, at, data) VALUES (?, ?, ?, ?)"
"""
TAKES_BACK: Final = 'file.execute("UPDATE operations SET begun = begun - 1 WHERE id = ?", (self._begun,))'
ACQUIRED: Final = "Lease(self._store.lease, asked_at)"
ANSWERED: Final = "time.monotonic()"

BROKEN: Final = {
    "publishers that are not serialised": (
        Change("broker", INSERTS, NUMBERED_BEFORE),
        "test_publishers_of_one_partition",
        "became visible behind others",
    ),
    "a batch confirmed before it is stored": (
        Change("broker", PUBLISHES, PUBLISHES.replace("await ", "_ = asyncio.ensure_future(") + ")"),
        "test_publishers_of_one_partition",
        "were confirmed and are not there",
    ),
    "a lease counted from the answer to its renewal": (
        Change("consuming", "renewed(asked_at)", f"renewed({ANSWERED})"),
        "test_an_answer_that_comes_late",
        "had renewed ran out before it knew",
    ),
    "a lease counted from the answer to its acquisition": (
        Change("consuming", ACQUIRED, ACQUIRED.replace("asked_at", ANSWERED)),
        "test_an_answer_that_comes_late",
        "had acquired ran out before it knew",
    ),
    "a release that keeps the count of what was begun": (
        Change("partition", TAKES_BACK, ""),
        "test_only_crashes_count_as_attempts",
        "a released attempt counts",
    ),
    "an isolation that never ends": (
        Change("partition", "self._isolated = self._isolated and isolated", "pass"),
        "test_only_crashes_count_as_attempts",
        "what crashed its owners is gone",
    ),
    "reading that ignores its bound of bytes": (
        Change("partition", "if taken and size > max_bytes", "if taken and size < 0"),
        "test_reading_keeps_its_bounds",
        "not bounded by bytes",
    ),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_transport_fails(mistake: str, tmp_path: Path) -> None:
    change, test, why = BROKEN[mistake]
    install(tmp_path, change)
    # A longer lease than a third party needs: the time for which two own a partition is a part of it.
    tests = example_tests().replace("lease=3", "lease=4").replace("dies_within=3.0", "dies_within=4.0")
    (word, reason) = outcomes(tmp_path, tests, [test])[test]
    assert word == "FAILED"
    assert why in reason
