"""Operations: immutable, complete, and silent about their payload."""

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from prefactor_core import InvalidInputError, InvalidPayloadError, Operation, OperationType
from prefactor_core.operations import SDK_HEADER, require_sound
from prefactor_core.payloads import MAX_OPERATION_BYTES, EncodedJson
from tests.unit.samples import AT, INSTANCE, PAYLOADS, SPAN, operation


def test_the_types_are_the_published_ones() -> None:
    published = (
        "REGISTER_AGENT_INSTANCE START_AGENT_INSTANCE FINISH_AGENT_INSTANCE RECORD_QUALITY CREATE_SPAN"
    )
    assert [kind.name for kind in OperationType] == [*published.split(), "FINISH_SPAN"]
    assert [kind.value for kind in OperationType] == [kind.name.lower() for kind in OperationType]


def test_the_operation_of_the_reference_and_one_with_nothing_optional() -> None:
    payload = {"instance_id": "inst-123", "schema_name": "agent:llm", "span_id": "span-456"}
    made = Operation(
        type=OperationType.CREATE_SPAN, payload=payload, timestamp=AT, idempotency_key="span-456"
    )
    assert made.payload == payload
    assert (made.instance_id, made.span_id) == ("inst-123", "span-456")
    assert (made.timestamp, made.idempotency_key, made.metadata) == (AT, "span-456", {})
    bare = Operation(OperationType.RECORD_QUALITY, {}, AT)
    assert (bare.instance_id, bare.span_id, bare.idempotency_key, dict(bare.payload)) == (
        None,
        None,
        None,
        {},
    )


def test_no_attribute_can_be_set() -> None:
    for field in dataclasses.fields(Operation):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(operation(OperationType.CREATE_SPAN), field.name, None)


def test_nothing_that_the_caller_changes_later_reaches_the_payload() -> None:
    inner: dict[str, Any] = {"list": [1]}
    given: dict[str, Any] = {"instance_id": "i", "payload": inner, "tags": ["a"], "set": {1}}
    made = Operation(OperationType.CREATE_SPAN, given, AT)
    given["instance_id"] = "other"
    inner["list"].append(2)
    given["tags"].append("b")
    made.payload["payload"]["list"].append(3)
    assert made.payload == {"instance_id": "i", "payload": {"list": [1]}, "tags": ["a"], "set": [1]}
    assert isinstance(made.payload["payload"], EncodedJson)
    with pytest.raises(TypeError):
        made.payload["instance_id"] = "other"  # type: ignore[index]


def test_plain_values_become_what_they_are_in_json() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    made = Operation(OperationType.START_AGENT_INSTANCE, {"timestamp": at, "flag": True, "none": None}, AT)
    assert made.payload == {"timestamp": "2026-01-02T00:00:00Z", "flag": True}


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"payload": {"score": math.nan}}, "payload.payload.score"),
        ({"result_payload": [object()]}, "payload.result_payload[0]"),
        ({"score": math.inf}, "payload.score"),
        ({"schema_name": "\ud800"}, "payload.schema_name"),
    ],
)
def test_what_is_not_json_is_refused_with_its_path(payload: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidPayloadError) as refused:
        Operation(OperationType.CREATE_SPAN, payload, AT)
    assert refused.value.field == path


def test_however_deep_a_value_is_it_is_taken_or_refused_by_name() -> None:
    value: dict[str, Any] = {}
    for depth in range(1, 301):
        value = {"a": value}
        refused = ""
        try:
            made = Operation(OperationType.CREATE_SPAN, {"payload": value}, AT)
            assert made.payload["payload"] == value, depth
        except InvalidPayloadError as error:
            refused = error.field
        assert not refused or (depth > 150 and refused.startswith("payload")), depth


def test_an_operation_over_the_limit_of_every_transport_is_refused() -> None:
    half = {"a": "x" * 900_000}
    for payload in (
        {"schema_name": "x" * (MAX_OPERATION_BYTES + 1)},
        {"payload": half, "result_payload": half},
    ):
        with pytest.raises(InvalidPayloadError, match=r"1,048,576|1,032,192"):
            Operation(OperationType.CREATE_SPAN, payload, AT)


def test_repr_shows_what_it_is_and_neither_payload_nor_metadata() -> None:
    made = Operation(
        OperationType.CREATE_SPAN,
        {"span_id": SPAN, "name": "S3CRET", "payload": {"a": "S3CRET"}},
        AT,
        "the-key",
        {"who": "S3CRET"},
    )
    assert "S3CRET" not in repr(made) + str(made)
    assert "CREATE_SPAN" in repr(made)
    assert "the-key" in repr(made)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"text": text}, lambda text: [text]])
def test_size_tracks_the_bytes(wrap: Any) -> None:
    def size(length: int) -> int:
        return Operation(OperationType.CREATE_SPAN, {"payload": wrap("x" * length)}, AT).size

    assert size(500_000) - size(0) == 500_000
    assert 0 < size(0) < 400


@pytest.mark.parametrize("kind", OperationType)
def test_equal_content_is_equal_and_replacing_keeps_the_rest(kind: OperationType) -> None:
    one, other = operation(kind), operation(kind)
    assert one == other
    assert one != operation(kind, key="another-key")
    assert one != operation(kind, instance_id="other")
    renamed = dataclasses.replace(one, idempotency_key="another-key")
    assert renamed.payload == one.payload
    assert renamed.idempotency_key == "another-key"
    assert one.payload == PAYLOADS[kind]
    assert one.instance_id == INSTANCE


def test_what_has_no_type_or_time_is_refused(subtests: pytest.Subtests) -> None:
    for field, value in (
        ("type", "create_span"),
        ("type", None),
        ("timestamp", "2026-01-01"),
        ("timestamp", None),
    ):
        with subtests.test(f"{field} = {value!r}"):
            with pytest.raises(InvalidInputError) as refused:
                make(**{field: value})
            assert refused.value.field == field


def test_what_would_do_harm_in_a_request_is_not_sound(subtests: pytest.Subtests) -> None:
    unsound: list[tuple[str, dict[str, Any]]] = [
        *(("idempotency_key", {"idempotency_key": key}) for key in ("\ud800", 5, b"key", ["key"])),
        *(
            (f"payload.{name}", {"payload": {name: value}})
            for name in ("instance_id", "span_id", "parent_span_id")
            for value in ("a\nb", "\x00", "x" * 257, ".", "..", 5, ["a"], {"a": 1})
        ),
        *(
            ("metadata", {"metadata": {SDK_HEADER: text}})
            for text in ("größe@1", "a\r\nb", "\x00", "x" * 1_025)
        ),
    ]
    for field, changes in unsound:
        with subtests.test(ascii(changes)[:80]):
            made = make(**changes)
            assert all(
                isinstance(one, str | None) for one in (made.instance_id, made.span_id, made.parent_span_id)
            )
            with pytest.raises(InvalidInputError) as refused:
                require_sound(made)
            assert refused.value.field.startswith(field)
            assert str(refused.value).isascii()
            assert str(refused.value).isprintable()


def test_every_other_key_and_id_is_sound() -> None:
    """A key goes out as JSON, where whatever it holds is harmless; brokers and logs are stricter."""
    for key in (None, "k", "x" * 500, "ü" * 64, "a b", "", "a\r\nb"):
        for name in ("i", "a/b", "größe", "x" * 256):
            require_sound(
                operation(OperationType.CREATE_SPAN, key, instance_id=name, schema_name="agent:größe\n")
            )


def make(**changes: Any) -> Operation:
    return Operation(**{"type": OperationType.CREATE_SPAN, "payload": {}, "timestamp": AT, **changes})
