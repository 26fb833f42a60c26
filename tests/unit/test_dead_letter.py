"""Records of dead letters: everything comes back, and nothing that lies there is hidden."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from prefactor_core.broker.dead_letters import (
    UNKNOWN,
    UNREAD,
    Selection,
    StoredDeadLetter,
    decode_dead_letter,
    encode_dead_letter,
)
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.execution.outcome import FOLLOWS
from prefactor_core.operations import OperationType
from tests.unit.samples import AGENT, INSTANCE, operation

ENVELOPE = encode(Envelope("producer-7", 3, operation(OperationType.RECORD_QUALITY), "sdk@1"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    st.binary(max_size=200) | st.just(ENVELOPE),
    st.integers(0, 1_023),
    TEXTS,
    st.integers(0, 1_000),
    st.none() | TEXTS,
)
def test_round_trip(envelope: bytes, partition: int, reason: str, attempts: int, reply: str | None) -> None:
    before = datetime.now(UTC)
    record = StoredDeadLetter.of(envelope, partition, reason, attempts, reply)
    assert before <= record.at <= datetime.now(UTC)
    assert decode_dead_letter(encode_dead_letter(record), partition + 1) == record


def test_what_the_record_says() -> None:
    record = StoredDeadLetter.of(ENVELOPE, 5, "rejected", 4, '{"code":"no"}')
    fields = from_json(encode_dead_letter(record))
    assert fields == {
        "v": 1,
        "at": record.at.isoformat(),
        "partition": 5,
        "reason": "rejected",
        "attempts": 4,
        "reply": '{"code":"no"}',
        "envelope": ENVELOPE.decode(),
    }
    envelope = record.read()
    assert envelope is not None
    assert (envelope.id, envelope.sequence) == (record.id, 3) == ("producer-7", 3)
    newer = {**fields, "worker": "w1"}
    assert decode_dead_letter(to_json(newer), 0) == record, "a newer release may say more"


def test_bytes_that_are_no_text_are_kept() -> None:
    data = b"\x00\xff\xfe pickle \x80\x04"
    encoded = encode_dead_letter(StoredDeadLetter.of(data, 1, "unreadable", 0, None))
    assert "envelope" not in from_json(encoded)
    record = decode_dead_letter(encoded, 9)
    assert record.envelope == data
    assert record.partition == 1
    assert record.read() is None
    assert record.id == decode_dead_letter(encoded, 9).id
    assert record.id.startswith("unreadable-")
    assert record.id != StoredDeadLetter.of(data + b"!", 1, "unreadable", 0, None).id


RECORD = b'{"v":1,"envelope":"x","partition":1,"reason":"","attempts":0,"reply":null,"at":"2026-01-01"}'
NO_RECORDS = [b"", b"\xff\x00", b"hello", b"[]", b"null", b'"text"', b"1", b"{}", b'{"v":2,"envelope":"x"}']
NO_RECORDS += [b'{"v":"1"}', b'{"v":null}', b'{"v":[1]}', b'{"v":{"a":1}}', b'{"v":1}', b'{"v":1e999}']
NO_RECORDS += [b'{"v":1,"envelope":5}', b'{"v":1,"envelope_base64":"%%%"}']
NO_RECORDS += [
    RECORD.replace(right, wrong)
    for right, wrong in (
        (b'"partition":1', b'"partition":"many"'),
        (b'"attempts":0', b'"attempts":null'),
        (b'"2026-01-01"', b'"yesterday"'),
        (b'"2026-01-01"', b"5"),
        (b'"reply":null,', b""),
        (b'"envelope":"x"', b'"envelope_base64":"%%%"'),
        (b'"partition":1', b'"partition":1e999'),
    )
]


def test_what_is_no_record_is_shown_all_the_same(subtests: pytest.Subtests) -> None:
    assert decode_dead_letter(RECORD, 7).reason == "", "this one is a record"
    for foreign in NO_RECORDS:
        with subtests.test(repr(foreign)):
            record = decode_dead_letter(foreign, 7)
            assert record.envelope == foreign
            assert record.partition == 7
            assert record.reason == "a dead letter in a format that this release does not know"
            assert record.read() is None
            assert record.id.startswith("unreadable-")


def test_a_long_reply_is_cut() -> None:
    record = StoredDeadLetter.of(ENVELOPE, 0, "x", 1, "ü" * 20_000)
    assert record.reply == "ü" * 16_384
    assert StoredDeadLetter.of(ENVELOPE, 0, "x", 1, "ü" * 16_384).reply == "ü" * 16_384
    assert decode_dead_letter(encode_dead_letter(record), 0) == record


def test_neither_payload_nor_reply_is_in_the_repr() -> None:
    record = StoredDeadLetter.of(ENVELOPE, 0, "rejected", 1, "secret reply")
    assert "secret" not in repr(record)
    assert "tone" not in repr(record)
    assert "rejected" in repr(record)


def selected(**wanted: Any) -> list[str]:
    """Return which of four dead letters are selected."""
    register = Envelope("r", 1, operation(OperationType.REGISTER_AGENT_INSTANCE, agent_id=AGENT))
    create = Envelope("c", 2, operation(OperationType.CREATE_SPAN), agent=AGENT)
    finish = Envelope("f", 3, operation(OperationType.FINISH_SPAN), agent="another")
    why = "rejected: HTTP 422 Invalid (a, b)"
    dead = [
        StoredDeadLetter.of(encode(register), 0, "failed after 4 attempts: ReadTimeout", 4, None),
        StoredDeadLetter.of(encode(create), 0, why, 1, None),
        StoredDeadLetter.of(encode(finish), 0, f"{FOLLOWS}{why}", 0, None),
        StoredDeadLetter.of(b"\x1b", 0, "unreadable: \x1b[2J", 0, None),
    ]
    return [one.id[:1] for one in dead if Selection(**wanted).takes(one)]


def test_what_is_selected_meets_all_that_is_given() -> None:
    assert selected() == ["r", "c", "f", "u"]
    assert selected(instance=INSTANCE) == ["r", "c", "f"]
    assert selected(type="create_span") == ["c"]
    assert selected(type=UNREAD) == selected(agent=UNKNOWN) == ["u"]
    assert selected(agent=AGENT) == ["r", "c"]
    assert selected(agent=AGENT, type="create_span", ids=["c", "f"], reason="422") == ["c"]
    assert selected(agent="another", type="create_span") == []
    assert selected(ids=[], reason="rejected") == []


def test_a_reason_is_selected_by_a_part_in_which_a_star_is_anything() -> None:
    assert selected(reason="rejected: HTTP 422") == ["c", "f"], "with its dependents"
    assert selected(reason=FOLLOWS) == ["f"]
    assert selected(reason="invalid (A, B)") == ["c", "f"], "whatever the case"
    assert selected(reason="failed after * attempts: Read*") == selected(reason="*4*time") == ["r"]
    assert selected(reason="attempts*failed") == [], "in this order"
    assert selected(reason="4*4") == selected(reason="42?") == selected(reason="[4]22") == []
    assert selected(reason="\\x1b[2J") == ["u"], "as it is shown"
    assert selected(reason="*") == ["r", "c", "f", "u"]
