"""How dead letters are shown, whatever somebody has put where they are kept."""

import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from pydantic_core import from_json, to_json
from rich.console import Console

from prefactor_core.broker.dead_letters import StoredDeadLetter, decode_dead_letter, encode_dead_letter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_worker.operate.dead_letter_view import summary, summary_lines, whole, whole_lines
from prefactor_worker.operate.words import moment
from tests.support.operations import create, dice

ENVELOPE: Final = encode(Envelope("an-id", 1, create("i", "s", payload={"a": 1}), "sdk@1"))
RECORD: Final = from_json(encode_dead_letter(StoredDeadLetter.of(ENVELOPE, 3, "why", 2, "reply")))
FIRST: Final = "0001-01-01T00:00:00+14:00"
LAST: Final = "9999-12-31T23:59:59-14:00"

MISSING: Final = object()
VALUES: Final[tuple[object, ...]] = (
    *(MISSING, None, True, -1, 2, 10**4_299, 1.5, 1e308, [], [[]], [1], {}, {"a": ["\x1b[2J"]}),
    *("", "1", "{}", "null", "\x1b[2J\r\n\x00\u202e", "\x00\u2028\x9b", "\ufeff", "%%%", "x" * 100_000),
    *(FIRST, LAST, "0001-01-01T00:00:00", "9999-12-31T23:59:59", "0001-01-01", "9999-12-31", "1970-01-01"),
)


def hostile() -> Iterator[bytes]:
    """Yield what is no record, and records in which one thing is missing, or each of these values."""
    yield from (b"", b"{}", b"\xff\x00")
    yield to_json({name: RECORD[name] for name in RECORD if name != "envelope"} | {"envelope_base64": ""})
    for depth, part in enumerate(parts(RECORD, from_json(ENVELOPE))):
        for name in (*part, "more", "\x1b[2J"):
            for value in VALUES:
                yield changed(depth, name, value)


def parts(fields: dict[str, Any], envelope: dict[str, Any]) -> list[dict[str, Any]]:
    return [fields, envelope, envelope["body"], envelope["body"]["payload"]]


def changed(depth: int, name: str, value: object) -> bytes:
    fields, envelope = dict(RECORD), from_json(ENVELOPE)
    part = parts(fields, envelope)[depth]
    part[name] = value
    if value is MISSING:
        del part[name]
    if depth > 0:
        fields["envelope"] = to_json(envelope).decode()
    return to_json(fields)


def broken(rng: random.Random) -> bytes:
    """Return a record of which a few bytes are others."""
    data = bytearray(to_json(RECORD))
    for _ in range(rng.choice([1, 3])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def shown(data: bytes) -> str:
    """Return all that the commands write about a record, in one text."""
    found = decode_dead_letter(data, 7)
    text = io.StringIO()
    console = Console(file=text, soft_wrap=True)
    for line in (*summary_lines(found), *whole_lines(found)):
        console.print(line)
    brief, everything = json.loads(json.dumps(summary(found))), json.loads(json.dumps(whole(found)))
    assert brief.items() <= everything.items()
    return text.getvalue()


def problem_of(data: bytes) -> str | None:
    """Return what is wrong with how a record is shown, if anything is."""
    try:
        text = shown(data)
    except Exception as error:  # noqa: BLE001 -- whatever it is, a command would end in it
        return repr(error)[:80]
    loud = sorted({one for one in text if not one.isprintable() and one != "\n"})
    return f"it says {loud}" if loud else None


def test_hostile_records_are_shown() -> None:
    rng = dice(1)
    records = (*hostile(), *(broken(rng) for _ in range(500)))
    assert [(data[:500], problem) for data in records if (problem := problem_of(data))] == []


def test_a_good_record_is_shown_as_it_is() -> None:
    text = shown(to_json(RECORD))
    for words in (
        "an-id",
        "create_span",
        "instance i, partition 3",
        "why (2 attempts)",
        "sdk@1",
        '"a": 1',
    ):
        assert words in text
    assert "cannot be read" not in text


def test_every_time_of_the_calendar_can_be_told() -> None:
    for at, said in (
        (datetime(2026, 1, 2, 3, 4, 5, 9, UTC), "2026-01-02 03:04:05 UTC"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02 01:00:00 UTC"),
        (datetime.fromisoformat(FIRST), "0001-01-01 00:00:00 UTC+14:00"),
        (datetime.fromisoformat(LAST), "9999-12-31 23:59:59 UTC-14:00"),
        (datetime.fromisoformat("0001-01-01"), "0001-01-01 00:00:00"),
        (datetime.fromisoformat("9999-12-31T23:59:59.9"), "9999-12-31 23:59:59"),
    ):
        assert moment(at) == said


def test_how_often_it_was_tried() -> None:
    for attempts, listed, row in (
        (0, "(never sent)", "0, it was never sent"),
        (1, "(1 attempt)", "1"),
        (2, "(2 attempts)", "2"),
    ):
        found = StoredDeadLetter.of(ENVELOPE, 3, "why", attempts, None)
        assert f"why {listed}" in "\n".join(line.plain for line in summary_lines(found))
        assert f"attempts    {row}" in [line.plain for line in whole_lines(found)]
        assert summary(found)["attempts"] == attempts


def test_what_is_no_record_says_nothing_of_attempts_and_times() -> None:
    found = decode_dead_letter(b"{}", 3)
    text = "\n".join(line.plain for line in (*summary_lines(found), *whole_lines(found)))
    assert "tried" not in text
    assert "at an unknown time" in text
    assert (summary(found)["attempts"], summary(found)["at"]) == (None, None)


def test_what_is_no_envelope_is_shown_as_it_is() -> None:
    for data, shown_as in ((b"\x1b[31m {", "envelope"), (b"\xff\xfe", "envelope_base64")):
        found = StoredDeadLetter.of(data, 3, "no envelope", 0, None)
        brief, everything = summary(found), whole(found)
        assert (brief["readable"], brief["type"], brief["instance"]) == (False, None, None)
        assert everything.keys() & {"body", "envelope", "envelope_base64"} == {shown_as}
        assert everything.get("envelope", data.decode("latin-1")) == data.decode("latin-1")
        text = "\n".join(line.plain for line in (*summary_lines(found), *whole_lines(found)))
        assert "cannot be read by this release" in text
        assert "\x1b" not in text


def test_a_payload_does_not_speak_to_the_terminal() -> None:
    payload = {"a": "\x1b[31m \x9b31m \u202e grün"}
    operation = create("i", "s", payload=payload)
    found = StoredDeadLetter.of(encode(Envelope("id", 1, operation, "sdk")), 0, "why\x1b[2J", 2, "re\x07ply")
    text = "\n".join(line.plain for line in whole_lines(found))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "grün" in text
    body = text[text.index("body\n") + len("body\n") :]
    assert json.loads(body)["payload"] == payload, "it is JSON all the same"
