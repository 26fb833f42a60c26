"""What somebody else puts on a broker beside good operations: it is set aside, and speaks to nobody."""

import re
from typing import Any, Final

from pydantic_core import from_json, to_json

from prefactor_core.broker.envelope import Envelope, encode, partition_of
from prefactor_core.identifiers import PfidFactory
from tests.fleet.scenario import published
from tests.support.fleet import Fleet
from tests.support.operations import finish_span
from tests.support.watching import dead_letters
from tests.worker.commands import open_queue

FORGED: Final = "FORGED"
LINE: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL) .*\[\d+\]")
"""How each line of a worker's log looks."""

HOSTILE: Final[dict[str, dict[str, Any]]] = {
    "CR and LF in the key": {"key": f"k\r\n{FORGED} line"},
    "NUL in the key": {"key": f"{FORGED}\x00"},
    "an escape in the key": {"key": f"\x1b[2J{FORGED}"},
    "a header that is not ASCII": {"sdk": f"größe@1 {FORGED}"},
    "a header with CR and LF": {"sdk": f"a@1\r\n{FORGED}: 1"},
    "a header with NUL": {"sdk": f"a\x00{FORGED}@1"},
    "a long header": {"sdk": FORGED * 1_000},
    "LF in the id": {"id": f"an-id\n{FORGED}"},
    "an id that a command takes for an option": {"id": f"--{FORGED}"},
    "a long id": {"id": FORGED * 1_000},
    "a huge sequence": {"seq": 10**4_000},
    "a huge version": {"v": 10**4_000},
    "LF in the type": {"type": f"create_span\n{FORGED}"},
    "LF in the time": {"at": f"2026-01-01\n{FORGED}"},
    "LF in the span": {"body": {"span_id": f"s\n{FORGED}"}},
    "a long span": {"body": {"span_id": FORGED * 20_000}},
    "a span that leaves its path": {"body": {"span_id": ".."}},
    "LF in the parent": {"body": {"parent_span_id": f"s\n{FORGED}"}},
    "a bell in the instance": {"instance": f"i\x07{FORGED}", "body": {"instance_id": f"i\x07{FORGED}"}},
}


def hostile(instance: str, number: int, change: dict[str, Any]) -> bytes:
    """Return the envelope of an operation that no API knows what to do with, with something else in it."""
    fields = from_json(encode(Envelope(f"foreign-{number}", 1, finish_span(instance, "s"), "foreign@1")))
    body = fields["body"] | change.get("body", {})
    return to_json(fields | change | {"body": body})


async def test_good_operations_are_delivered_beside_hostile_ones(fleet: Fleet) -> None:
    ids = PfidFactory()
    puts = await published(fleet, await fleet.agent("--instances", "6", "--tasks", "6", "--spans", "6"))
    async with open_queue(fleet.url) as queue, queue.broker.publishing() as end:
        partitions = await end.partitions()
        for number, change in enumerate(HOSTILE.values()):
            instance = ids.new()
            data = hostile(instance, number, change)
            await end.publish(partition_of(instance, partitions), [data])
    log = (await fleet.drain()).log
    assert [line for line in log.splitlines() if not LINE.fullmatch(line)] == []
    assert FORGED not in log
    assert "UnicodeEncodeError" not in log
    figures = fleet.figures()
    assert (figures.puts, figures.lost, figures.doubled, figures.out_of_order) == (puts, 0, 0, 0)
    records = await dead_letters(fleet)
    assert len(records) == len(HOSTILE)
    for record in records:
        assert record.reason.startswith("unreadable: "), record.reason
        assert record.reason.isprintable()
        assert FORGED not in record.reason
        assert (record.read(), record.attempts) == (None, 0)
