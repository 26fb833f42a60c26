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
    assert [kind.name for kind in OperationType] == [
        "REGISTER_AGENT_INSTANCE",
        "START_AGENT_INSTANCE",
        "FINISH_AGENT_INSTANCE",
        "RECORD_QUALITY",
        "CREATE_SPAN",
        "FINISH_SPAN",
    ]
    assert [kind.value for kind in OperationType] == [kind.name.lower() for kind in OperationType]


def test_the_operation_of_the_reference() -> None:
    operation = Operation(
        type=OperationType.CREATE_SPAN,
        payload={"instance_id": "inst-123", "schema_name": "agent:llm", "span_id": "span-456"},
        timestamp=AT,
        idempotency_key="span-456",
    )
    assert operation.payload == {"instance_id": "inst-123", "schema_name": "agent:llm", "span_id": "span-456"}
    assert (operation.instance_id, operation.span_id) == ("inst-123", "span-456")
    assert (operation.timestamp, operation.idempotency_key, operation.metadata) == (AT, "span-456", {})


def test_what_is_optional_is_optional() -> None:
    bare = Operation(OperationType.RECORD_QUALITY, {}, AT)
    assert (bare.instance_id, bare.span_id, bare.idempotency_key, dict(bare.payload)) == (
        None,
        None,
        None,
        {},
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Operation)])
def test_no_attribute_can_be_set(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(operation(OperationType.CREATE_SPAN), name, None)


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


@pytest.mark.parametrize("depth", [150, 190, 198, 199, 200, 201, 230, 253, 254, 300])
def test_however_deep_a_value_is_it_is_taken_or_refused_by_name(depth: int) -> None:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    try:
        made = Operation(OperationType.CREATE_SPAN, {"payload": value}, AT)
    except InvalidPayloadError as error:
        refused = error.field
    else:
        assert made.payload["payload"] == value
        return
    assert depth > 150
    assert refused.startswith("payload")


@pytest.mark.parametrize(
    "payload",
    [
        {"schema_name": "x" * (MAX_OPERATION_BYTES + 1)},
        {"payload": {"a": "x" * 900_000}, "result_payload": {"a": "x" * 900_000}},
    ],
)
def test_an_operation_over_the_limit_of_every_transport_is_refused(payload: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "create_span"}, "type"),
        ({"type": None}, "type"),
        ({"timestamp": "2026-01-01"}, "timestamp"),
        ({"timestamp": None}, "timestamp"),
    ],
    ids=repr,
)
def test_what_has_no_type_or_time_is_refused(changes: dict[str, Any], field: str) -> None:
    fields = {"type": OperationType.CREATE_SPAN, "payload": {}, "timestamp": AT, **changes}
    with pytest.raises(InvalidInputError) as refused:
        Operation(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"idempotency_key": key}, "idempotency_key") for key in ("\ud800", 5, b"key", ["key"])),
        *(
            ({"payload": {name: value}}, f"payload.{name}")
            for name in ("instance_id", "span_id", "parent_span_id")
            for value in ("a\nb", "\x00", "x" * 257, ".", "..", 5, ["a"], {"a": 1})
        ),
        *(
            ({"metadata": {SDK_HEADER: text}}, "metadata")
            for text in ("größe@1", "a\r\nb", "\x00", "x" * 1_025)
        ),
    ],
    ids=repr,
)
def test_what_would_do_harm_in_a_request_is_not_sound(changes: dict[str, Any], field: str) -> None:
    fields = {"type": OperationType.CREATE_SPAN, "payload": {}, "timestamp": AT, **changes}
    made = Operation(**fields)
    assert all(isinstance(one, str | None) for one in (made.instance_id, made.span_id, made.parent_span_id))
    with pytest.raises(InvalidInputError) as refused:
        require_sound(made)
    assert refused.value.field.startswith(field)
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("key", [None, "k", "x" * 500, "ü" * 64, "a b", "", "a\r\nb"])
@pytest.mark.parametrize("name", ["i", "a/b", "größe", "x" * 256])
def test_every_other_key_and_id_is_sound(key: str | None, name: str) -> None:
    """A key goes out as JSON, where whatever it holds is harmless; brokers and logs are stricter."""
    require_sound(operation(OperationType.CREATE_SPAN, key, instance_id=name, schema_name="agent:größe\n"))
