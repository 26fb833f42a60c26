"""The envelope: what goes to a broker comes back as the same operation, and nothing else comes back."""

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from prefactor_core.api import wire
from prefactor_core.broker.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    UnreadableEnvelopeError,
    agent_of,
    check,
    decode,
    encode,
)
from prefactor_core.exceptions import InvalidInputError, InvalidPayloadError, OperationError
from prefactor_core.identifiers import PfidFactory
from prefactor_core.operations import ANSWER_TO, OPERATION_ID, SDK_HEADER, Operation, OperationType
from prefactor_core.payloads import MAX_OPERATION_BYTES, MAX_PAYLOAD_BYTES, encode_object
from tests.support.operations import dice
from tests.unit.samples import AGENT, AT, PAYLOADS, operation

SECRET = "hunter2-do-not-print"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
PRINTABLE = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
KEYS = st.text(PRINTABLE, min_size=1, max_size=64)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 -- the zone is the strategy's other argument
    timezones=st.integers(-1_380, 1_380).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


def same(one: Operation, other: Operation) -> bool:
    return (
        dataclasses.replace(one, metadata=other.metadata) == other
        and one.timestamp.isoformat() == other.timestamp.isoformat()
        and one.size <= other.size
    )


def fields_of(kind: OperationType = OperationType.CREATE_SPAN) -> dict[str, Any]:
    fields = from_json(encode(Envelope("p-1", 1, operation(kind), "sdk@1")))
    assert isinstance(fields, dict)
    return fields


# -- round trips


def test_where_an_outcome_is_awaited_makes_the_round_trip_if_it_is_an_address() -> None:
    before = Envelope("p-1", 1, operation(OperationType.CREATE_SPAN), "sdk@1", answer_to="{a:1}:answers-5")
    after = decode(encode(before))
    assert after.answer_to == after.operation.metadata[ANSWER_TO] == "{a:1}:answers-5"
    no_address: list[object] = ["", "a" * 257, "a\n", "\x1b[31m", "é", 5, None, ["a"], {}]
    for none in no_address:
        after = decode(to_json(fields_of() | {"answer_to": none}))
        assert after.answer_to is None, none
        assert ANSWER_TO not in after.operation.metadata, none


def test_the_agent_makes_the_round_trip_if_it_is_fit_for_a_line() -> None:
    made = operation(OperationType.FINISH_SPAN)
    for agent in (AGENT, "größe", "a" * 100, None):
        data = encode(Envelope("p-1", 1, made, agent=agent))
        assert (b"agent" in data, decode(data).agent) == (agent is not None, agent)
    bad: list[object] = ["", "a" * 101, "a\n", "\x1b[31m", 5, None, ["a"], {}]
    for none in bad:
        assert decode(to_json(fields_of() | {"agent": none})).agent is None, none


def test_what_a_registration_names_is_fit_for_an_envelope() -> None:
    def named(**changes: Any) -> str | None:
        return agent_of(operation(OperationType.REGISTER_AGENT_INSTANCE, **changes))

    assert named() == "bot"
    assert named(agent_id=AGENT) == AGENT
    for version in (None, {}, {"name": 5}, {"name": ""}, "bot", ["name"]):
        assert named(agent_version=version) is None, version
    for name in ("\x1b[2J\n", "a" * 1_000, "\u202e" * 50, "größe"):
        agent = named(agent_version={"name": name})
        assert agent
        assert (
            decode(encode(Envelope("p-1", 1, operation(OperationType.CREATE_SPAN), agent=agent))).agent
            == agent
        )
    assert agent_of(operation(OperationType.CREATE_SPAN, agent_id=AGENT)) is None


@pytest.mark.parametrize("kind", OperationType)
def test_every_type_of_operation_makes_the_round_trip(kind: OperationType) -> None:
    header = "agent@2 prefactor-core@1"
    before = Envelope("producer-12", 7, operation(kind), header)
    after = decode(encode(before))
    assert same(after.operation, before.operation)
    assert (after.id, after.sequence, after.sdk_header, after.replayed) == ("producer-12", 7, header, False)
    assert wire.encode(after.operation) == wire.encode(before.operation), "what is sent is the same"
    assert after.operation.metadata == {OPERATION_ID: "producer-12", "sequence": 7, SDK_HEADER: header}


@settings(deadline=None)
@example(OperationType.CREATE_SPAN, {"x": -0.0}, {"x": 5e-324}, AT, None, 1)
@example(OperationType.CREATE_SPAN, {"": 1e22}, {"\x00": "\u2028"}, AT, "k" * 64, 1)
@given(
    st.sampled_from(OperationType),
    OBJECTS,
    st.none() | OBJECTS,
    TIMES,
    st.none() | KEYS,
    st.integers(1, 1 << 60),
)
def test_any_payload_makes_the_round_trip_byte_for_byte(
    kind: OperationType,
    payload: dict[str, Any],
    result: dict[str, Any] | None,
    at: datetime,
    key: str | None,
    sequence: int,
) -> None:
    encoded = encode_object(payload, "payload")
    before = Operation(kind, {**PAYLOADS[kind], "payload": encoded, "result_payload": result}, at, key)
    data = encode(Envelope("i-1", sequence, before, "sdk"))
    after = decode(data)
    assert same(after.operation, before)
    assert after.operation.payload["payload"].encoded == encoded.encoded
    if result is not None:
        assert after.operation.payload["result_payload"].encoded == to_json(result)
    assert wire.encode(after.operation) == wire.encode(before)
    assert encode(after) == data


def test_what_is_no_object_or_of_no_instance_makes_the_round_trip_too() -> None:
    odd = {"instance_id": "i", "name": "n", "list": [1, {"a": None}, []], "flag": True, "count": 5, "e": []}
    payloads: list[dict[str, Any]] = [odd, {}, {"name": "n"}, {"payload": {}}]
    for payload in payloads:
        before = Operation(OperationType.RECORD_QUALITY, payload, AT, "k" if payload else None)
        after = decode(encode(Envelope("i-1", 1, before))).operation
        assert same(after, before), payload
        assert after.instance_id == payload.get("instance_id")


def test_the_replayed_flag() -> None:
    one = Envelope("i-1", 1, operation(OperationType.CREATE_SPAN))
    assert b"replayed" not in encode(one)
    again = Envelope(one.id, one.sequence, one.operation, replayed=True)
    assert decode(encode(again)).replayed
    for value in (False, None, 0, 1, "true"):
        assert not decode(to_json({**fields_of(), "replayed": value})).replayed


def test_unknown_names_are_ignored_and_two_fields_may_be_missing() -> None:
    fields = {**fields_of(), "priority": {"a": [1]}, "x": None}
    assert decode(to_json(fields)).id == "p-1"
    del fields["sdk"]
    del fields["key"]
    envelope = decode(to_json(fields))
    assert envelope.sdk_header == ""
    assert envelope.operation.idempotency_key is None


# -- size


def test_the_largest_operation_fits() -> None:
    empty = encode_object({"x": ""}, "p")
    room = MAX_OPERATION_BYTES - operation(OperationType.FINISH_SPAN, result_payload=empty).size
    payload = {"x": "y" * min(room, MAX_PAYLOAD_BYTES - 8)}
    largest = operation(
        OperationType.FINISH_SPAN,
        "k" * 64,
        result_payload=encode_object(payload, "p"),
        more="z" * (room - len(payload["x"]) - len("more")),
    )
    assert largest.size == MAX_OPERATION_BYTES
    data = encode(Envelope(f"{'p' * 16}-{1 << 40}", 1 << 60, largest, "sdk@1 " * 100, replayed=True))
    assert len(data) <= MAX_ENVELOPE_BYTES
    assert same(decode(data).operation, largest)


def test_the_largest_operation_fits_whatever_its_text() -> None:
    with pytest.raises(InvalidPayloadError):  # as JSON it is twice as long
        operation(OperationType.RECORD_QUALITY, name='"' * (MAX_OPERATION_BYTES - 4_096))
    before = operation(OperationType.RECORD_QUALITY, name='"' * (MAX_OPERATION_BYTES // 2 - 4_096))
    assert same(decode(encode(Envelope("i-1", 1, before))).operation, before)


def test_the_deepest_payload_that_is_taken_can_be_read() -> None:
    deepest: dict[str, Any] = {}
    while True:
        try:
            encoded = encode_object({"a": deepest}, "payload")
        except ValueError:
            break
        deepest = {"a": deepest}
        before = operation(OperationType.CREATE_SPAN, payload=encoded)
        assert same(decode(encode(Envelope("i-1", 1, before))).operation, before)


def test_what_is_too_large_is_refused_unread() -> None:
    data = encode(Envelope("i-1", 1, operation(OperationType.CREATE_SPAN)))
    padded = data + b" " * (MAX_ENVELOPE_BYTES - len(data))
    assert decode(padded).id == "i-1"
    problem = r"^1,064,961 bytes, an envelope has at most 1,064,960$"
    with pytest.raises(UnreadableEnvelopeError, match=problem):
        decode(padded + b" ")


def test_an_operation_that_is_too_large_in_an_envelope_that_is_not() -> None:
    fields = fields_of()
    fields["body"]["payload"] = {SECRET: "x" * MAX_OPERATION_BYTES}
    check_refused(to_json(fields), "at most 1,048,576")


# -- what is refused


def check_refused(data: bytes, problem: str) -> None:
    with pytest.raises(UnreadableEnvelopeError) as caught:
        decode(data)
    message = str(caught.value)
    assert problem in message
    assert SECRET not in message
    assert len(message) < 200
    # What went wrong inside may quote.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_is_no_envelope_of_this_release(subtests: pytest.Subtests) -> None:
    garbage = [b"", b"\x00", b"\xff\xfe", b"\x80\x04\x95pickle", SECRET.encode(), b'{"v":1,', b'{"v":NaN}']
    garbage += [
        b'{"v":1} ' + SECRET.encode(),
        b'{"v":1,"id":"\xff"}',
        b'{"v":1,"id":"\\ud800"}',
        b"1" * 5_000,
    ]
    garbage += [b'{"a":' * 300 + b"1" + b"}" * 300]
    no_object = [b"null", b"1", b'"text"', b"[]", b'[{"v":1}]', b"true"]
    rows = [(data, "not JSON") for data in garbage] + [(data, "no JSON object") for data in no_object]
    for version in (0, 2, -1, 10**6):
        text = f"envelope version {version}, this release reads version 1"
        rows.append((to_json({**fields_of(), "v": version}), text))
    no_version: list[object] = [None, "1", 1.0, True, [1], {"v": 1}, SECRET, 10**40]
    rows += [(to_json({**fields_of(), "v": none}), "this release reads version 1") for none in no_version]
    rows.append((to_json({"body": SECRET}), "no envelope version"))
    huge = to_json({**fields_of(), "v": 10**4_000})
    rows.append((huge, "no envelope version; this release reads"))  # it is not quoted
    for data, problem in rows:
        with subtests.test(f"{data[:60]!r}: {problem}"):
            check_refused(data, problem)


BAD_FIELDS: list[tuple[str, list[object], str]] = [
    ("id", [None, "", 5, [SECRET]], "id or seq"),
    ("seq", [None, "1", 1.0, True], "id or seq"),
    ("type", [None, SECRET, {"a": SECRET}, "CREATE_SPAN"], "unknown operation type"),
    ("at", [None, "", SECRET], "at: no time"),
    ("at", [1_700_000_000], "at: no text"),
    ("key", ["", SECRET * 5], "key: not 1 to 64"),
    ("key", [5, [SECRET]], "key: no text"),
    ("sdk", [5, {"a": SECRET}], "sdk: no text"),
    ("instance", [None, SECRET, 5], "instance"),
    ("body", [None, SECRET, [SECRET]], "body: no JSON object"),
]


def test_fields_that_are_missing_or_of_another_kind(subtests: pytest.Subtests) -> None:
    for name, values, problem in BAD_FIELDS:
        for value in values:
            with subtests.test(f"{name} = {value!r}"):
                check_refused(to_json({**fields_of(), name: value}), problem)
                if value is None:
                    fields = fields_of()
                    del fields[name]
                    check_refused(to_json(fields), problem)


def test_ids_that_are_no_text(subtests: pytest.Subtests) -> None:
    """Lanes and dependents are kept by them, so one that cannot be hashed would end a worker."""
    ids = ("instance_id", "span_id", "parent_span_id")
    for name, value in itertools.product(ids, (5, True, 1.5, [SECRET], {"a": SECRET})):
        with subtests.test(f"{name} = {value!r}"):
            fields = fields_of()
            fields["body"][name] = value
            if name == "instance_id":
                fields["instance"] = value
            check_refused(to_json(fields), f"{name}: no text")


# -- texts

LOUD = ["\n", "\r\n", "\x00", "\x1b[2J", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\ufeff", "\ue000"]
UNREADABLE_TEXTS: list[tuple[str, dict[str, Any]]] = [
    *(("key", {"key": loud}) for loud in LOUD),
    *(("sdk", {"sdk": loud}) for loud in [*LOUD, "größe@1", "x" * 1_025]),
    *(("id", {"id": loud}) for loud in [*LOUD, "größe", "two words", "--all", "x" * 257]),
    *(("seq", {"seq": number}) for number in (-1, 1 << 63, 10**4_000)),
    *(
        (f"payload.{name}", {"body": {name: value}} | ({"instance": value} if name == "instance_id" else {}))
        for name in ("instance_id", "span_id", "parent_span_id")
        for value in [*LOUD, "x" * 257, ".", ".."]
    ),
    *(("at", {"at": f"2026-01-01{loud}"}) for loud in LOUD),
    *(("type", {"type": f"create_span{loud}"}) for loud in LOUD),
]


def test_a_text_that_would_speak_for_others_is_not_read(subtests: pytest.Subtests) -> None:
    for field, change in UNREADABLE_TEXTS:
        with subtests.test(f"{field}: {ascii(change)[:80]}"):
            fields = fields_of()
            body = fields["body"] | change.get("body", {})
            with pytest.raises(UnreadableEnvelopeError) as caught:
                decode(to_json(fields | change | {"body": body}))
            reason = str(caught.value)
            assert field in reason
            assert reason.isascii()
            assert reason.isprintable()
            assert len(reason) < 200


def test_what_a_client_may_have_published_is_read() -> None:
    header = f"{'x' * 1_000}@1 prefactor-core@1.1.0"
    keys = ["k", "k" * 64, "ü" * 64, " ", "".join(map(chr, range(32, 96))), "a:b/c?d=e#f"]
    for key, schema in itertools.product(keys, ["agent:größe", "agent:日本\n", "\x00", ""]):
        made = operation(OperationType.CREATE_SPAN, key, schema_name=schema, instance_id=PfidFactory().new())
        check(made, header)
        after = decode(encode(Envelope(f"{'f' * 16}-{1 << 40}", 1 << 40, made, header)))
        assert same(after.operation, made), (key, schema)
        assert after.operation.payload["schema_name"] == schema


def texts_of(envelope: Envelope) -> list[str]:
    """Return every text of an envelope that leaves its body."""
    made = envelope.operation
    found = [envelope.id, made.idempotency_key, made.instance_id, made.span_id, envelope.sdk_header]
    found += [made.payload.get("parent_span_id"), envelope.answer_to, envelope.agent, made.type.value]
    found += [made.timestamp.isoformat(), str(envelope.sequence)]
    found += [text for text in made.metadata.values() if isinstance(text, str)]
    return [text for text in found if text is not None]


def mutated(rng: random.Random, number: int) -> Iterator[bytes]:
    """Yield envelopes in which one or two things are another, and some with other bytes."""
    values: list[Any] = [*LOUD, *(f"a{loud}b" for loud in LOUD), "größe", "x" * 300, "x" * 2_000, "a", "a b"]
    values += [None, True, 0, -1, 1, 1 << 63, 10**4_299, 1.5, [], ["a"], {}, {"a": "\n"}, ".", "..", "-a"]
    values += ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01"]
    for _ in range(number):
        fields = fields_of(rng.choice(list(OperationType)))
        for _ in range(rng.choice([0, 1, 1, 2])):
            target = rng.choice([fields, fields, fields["body"]])
            target[rng.choice([*target, "agent", "answer_to", "parent_span_id", "\n"])] = rng.choice(values)
            if not isinstance(fields["body"], dict):
                break
            if rng.random() < 0.5:
                fields["instance"] = fields["body"].get("instance_id")
        data = bytearray(to_json(fields))
        for _ in range(rng.choice([0, 0, 0, 1])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_has_safe_texts_only_and_can_be_sent(seed: int) -> None:
    read = 0
    unsafe: list[bytes] = []
    for data in mutated(dice(seed), 2_000):
        try:
            envelope = decode(data)
        except UnreadableEnvelopeError as problem:
            if not str(problem).isprintable():
                unsafe.append(data)
            continue
        read += 1
        short = all(text.isprintable() and len(text) <= 1_024 for text in texts_of(envelope))
        if not (short and envelope.sdk_header.isascii() and envelope.id.isascii()):
            unsafe.append(data)
        assert encode(decode(encode(envelope))) == encode(envelope), (seed, data)
        with suppress(OperationError):
            sent = wire.encode(envelope.operation)
            assert json.loads(sent.bulk_item())["idempotency_key"] == sent.key, (seed, data)
            assert str(httpx.URL("http://api").join(sent.path)) == f"http://api{sent.path}", (seed, data)
    assert read > 200, f"seed {seed}: some are good"
    assert not unsafe, f"seed {seed}: these hold texts that are not safe"


ANY_TEXT = st.text(max_size=300) | st.sampled_from(
    [*LOUD, "x" * 257, "x" * 1_025, ".", "\ud800", "größe", "id"]
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(OperationType),
    st.none() | KEYS | ANY_TEXT,
    st.dictionaries(st.sampled_from(["instance_id", "span_id", "parent_span_id"]) | TEXTS, ANY_TEXT | VALUES),
    st.datetimes(
        timezones=st.none() | st.integers(-1_380, 1_380).map(lambda m: timezone(timedelta(minutes=m)))
    ),
    st.just("sdk@1") | ANY_TEXT,
)
def test_whatever_is_accepted_for_publishing_is_read_again(
    kind: OperationType, key: str | None, more: dict[str, Any], at: datetime, header: str
) -> None:
    try:
        made = Operation(kind, {**PAYLOADS[kind], **more}, at, key)
        check(made, header)
    except InvalidInputError:
        return
    envelope = decode(encode(Envelope("p-1", 1, made, header)))
    assert same(envelope.operation, made)
    assert envelope.sdk_header == header


@pytest.mark.parametrize(
    "payload",
    [
        {f"name{number}": "\x01" * 1_000 for number in range(900)},
        {"\x01" * 900_000: "a"},
        {f"{number:06}": "" for number in range(170_000)},
        {"ü" * 600_000: "a"},
    ],
    ids=["many escapes", "an escaped name", "many names", "a wide name"],
)
def test_what_takes_more_as_json_than_any_envelope_is_refused_before_it_is_published(
    payload: dict[str, str],
) -> None:
    made = Operation(OperationType.RECORD_QUALITY, payload, AT)
    with pytest.raises(UnreadableEnvelopeError, match="bytes, an envelope has at most"):
        decode(encode(Envelope("p-1", 1, made)))
    with pytest.raises(InvalidPayloadError, match="bytes as JSON"):
        check(made)


@pytest.mark.parametrize("place", ["payload", "schema_name", SECRET])
def test_numbers_that_are_no_json(place: str) -> None:
    """They can be written so that they are read, and then not written again."""
    fields = fields_of()
    fields["body"][place] = {SECRET: ["number"]} if place == "payload" else ["number"]
    check_refused(to_json(fields).replace(b'"number"', b"1e999"), "no JSON")
