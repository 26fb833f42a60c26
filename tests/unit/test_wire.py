"""Operations as requests: exactly the table "Writes" of the API's description."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefactor_core import Operation, OperationError, OperationType
from prefactor_core.api.wire import BULK_PATH, PING_PATH, bulk_body, encode
from tests.unit.samples import AGENT, AT, ENVIRONMENT, INSTANCE, PARENT, PAYLOADS, SPAN, operation

REGISTER = OperationType.REGISTER_AGENT_INSTANCE
START = OperationType.START_AGENT_INSTANCE
FINISH = OperationType.FINISH_AGENT_INSTANCE
QUALITY = OperationType.RECORD_QUALITY
CREATE = OperationType.CREATE_SPAN
END = OperationType.FINISH_SPAN

TIME = AT.isoformat()
VERSIONS = {name: PAYLOADS[REGISTER][name] for name in ("agent_version", "agent_schema_version")}
CHOSEN = {"agent_id": AGENT, "environment_id": ENVIRONMENT, "external_identifier": "mine", "purpose": "eval"}
NEW_SPAN = {"agent_instance_id": INSTANCE, "id": SPAN, "schema_name": "llm"}
TOLD_LATE = {"started_at": TIME, "finished_at": TIME, "result_payload": {"r": []}}

ROUTES: dict[OperationType, tuple[str, str, dict[str, str]]] = {
    REGISTER: ("agent_instance/register", "agent_instances/register", {}),
    START: (f"agent_instance/{INSTANCE}/start", "agent_instances/start", {"agent_instance_id": INSTANCE}),
    FINISH: (f"agent_instance/{INSTANCE}/finish", "agent_instances/finish", {"agent_instance_id": INSTANCE}),
    QUALITY: (
        f"agent_instance/{INSTANCE}/record_quality",
        "agent_instances/record_quality",
        {"agent_instance_id": INSTANCE},
    ),
    CREATE: ("agent_spans", "agent_spans/create", {}),
    END: (f"agent_spans/{SPAN}/finish", "agent_spans/finish", {"agent_span_id": SPAN}),
}
"""The path of each write alone, its type in bulk, and what names its target there."""

WRITES: list[tuple[OperationType, dict[str, Any], dict[str, Any]]] = [
    (REGISTER, {}, {"id": INSTANCE, **VERSIONS, "update_current_version": True}),
    (
        REGISTER,
        CHOSEN | {"update_current_version": False},
        {"id": INSTANCE, **CHOSEN, **VERSIONS, "update_current_version": False},
    ),
    (START, {}, {"timestamp": TIME}),
    (START, {"timestamp": None}, {"timestamp": TIME}),
    (FINISH, {}, {"status": "failed", "timestamp": TIME}),
    (
        FINISH,
        {"status": None, "timestamp": "2030-01-01T00:00:00Z"},
        {"status": "complete", "timestamp": "2030-01-01T00:00:00Z"},
    ),
    (QUALITY, {}, {"name": "tone", "payload": {"score": 3}}),
    (QUALITY, {"payload": None}, {"name": "tone", "payload": None}),
    (CREATE, {}, {"details": NEW_SPAN | {"status": "active", "payload": {"q": "ü"}}}),
    (
        CREATE,
        {"parent_span_id": PARENT, "status": "failed", "payload": None, **TOLD_LATE},
        {"details": NEW_SPAN | {"parent_span_id": PARENT, "status": "failed", "payload": {}, **TOLD_LATE}},
    ),
    (END, {}, {"status": "complete", "timestamp": TIME}),
    (
        END,
        {"status": "cancelled", "result_payload": {"a": {"b": 1}}},
        {"status": "cancelled", "timestamp": TIME, "result_payload": {"a": {"b": 1}}},
    ),
]
"""What each write brings beside what its type needs, and its fields as the API takes them."""


def test_each_write_as_the_api_takes_it(subtests: pytest.Subtests) -> None:
    assert {kind for kind, *_ in WRITES} == set(OperationType)
    for kind, changes, fields in WRITES:
        with subtests.test(f"{kind} with {changes}"):
            path, bulk_type, target = ROUTES[kind]
            wire = encode(operation(kind, "the-key-of-it", **changes))
            body = {"idempotency_key": "the-key-of-it", **fields}
            assert wire.path == f"/api/v1/{path}"
            assert json.loads(wire.single_body()) == body
            assert json.loads(wire.bulk_item()) == {"_type": bulk_type, **target, **body}


def test_the_paths_of_bulk_and_ping_and_the_body_of_bulk() -> None:
    assert (BULK_PATH, PING_PATH) == ("/api/v1/bulk", "/api/v1/ping")
    items = [encode(operation(kind)).bulk_item() for kind in OperationType]
    assert json.loads(bulk_body(items)) == {"items": [json.loads(item) for item in items]}


def test_the_span_of_the_reference_can_be_sent() -> None:
    payload = {"instance_id": "inst-123", "schema_name": "agent:llm", "span_id": "span-456"}
    wire = encode(Operation(OperationType.CREATE_SPAN, payload, AT, "span-456"))
    assert json.loads(wire.single_body()) == {
        "idempotency_key": "span-456",
        "details": {
            "agent_instance_id": "inst-123",
            "id": "span-456",
            "schema_name": "agent:llm",
            "status": "active",
            "payload": {},
        },
    }


def test_a_missing_field_is_named_and_nothing_else_is_needed() -> None:
    needed = {
        REGISTER: ["instance_id", "agent_version", "agent_schema_version"],
        START: ["instance_id"],
        FINISH: ["instance_id"],
        QUALITY: ["instance_id", "name"],
        CREATE: ["instance_id", "schema_name"],
        END: ["span_id"],
    }
    for kind in OperationType:
        for name in needed[kind]:
            with pytest.raises(OperationError, match=f"'{name}'") as refused:
                encode(operation(kind, **{name: None}))
            assert refused.value.operation_type == kind.name
        encode(operation(kind, **{name: None for name in PAYLOADS[kind] if name not in needed[kind]}))


@given(
    kind=st.sampled_from(OperationType),
    key=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
    changes=st.sampled_from([{}, {"instance_id": "i"}, {"span_id": "s"}]),
)
def test_every_key_that_is_sent_has_8_to_64_characters(
    kind: OperationType, key: str | None, changes: dict[str, str]
) -> None:
    wire = encode(operation(kind, key, **changes))
    assert 8 <= len(wire.key) <= 64
    assert json.loads(wire.single_body())["idempotency_key"] == wire.key
    assert json.loads(wire.bulk_item())["idempotency_key"] == wire.key
    assert encode(operation(kind, key, **changes)) == wire, "the same for every sending"


@pytest.mark.parametrize("key", ["", "x" * 65, "x" * 500], ids=len)
def test_a_key_that_no_operation_should_have_is_refused_or_sent_as_one_that_the_api_takes(key: str) -> None:
    try:
        one, other = (encode(operation(CREATE, key, span_id=span)).key for span in ("a", "b"))
    except (OperationError, ValueError):
        return
    assert 8 <= len(one) <= 64
    assert key or one != other, "an empty key is no key: operations must not share it"


def test_a_good_key_is_sent_as_it_is_and_short_ones_stay_apart() -> None:
    assert encode(operation(CREATE, "12345678")).key == "12345678"
    assert encode(operation(CREATE, "x" * 64)).key == "x" * 64
    short = [encode(operation(CREATE, key)).key for key in ("1", "2", "12", "1234567")]
    assert len(set(short)) == 4


def test_a_derived_key_tells_operations_apart() -> None:
    made = [operation(kind, None) for kind in OperationType]
    made += [operation(CREATE, None, span_id=PARENT), operation(CREATE, None, payload={"q": "other"})]
    made += [operation(START, None, instance_id=AGENT)]
    made += [Operation(CREATE, PAYLOADS[CREATE], AT.replace(microsecond=1))]
    assert len({encode(each).key for each in made}) == len(made) == len(OperationType) + 4


def test_an_id_is_one_segment_of_the_path_whatever_it_holds() -> None:
    for kind, field in ((START, "instance_id"), (END, "span_id")):
        for name in ("a/b", "../../ping", "a?b=c", "a#b"):
            path = encode(operation(kind, **{field: name})).path
            assert re.fullmatch(r"/api/v1/agent_\w+/[^/?#]+/\w+", path), path


@pytest.mark.parametrize(
    ("kind", "field", "sent_as"),
    [(CREATE, "schema_name", {"a": [1]}), (QUALITY, "name", {"a": [1]}), (START, "timestamp", TIME)],
)
def test_an_object_in_the_place_of_a_text_is_sent_for_the_api_to_refuse(
    kind: OperationType, field: str, sent_as: object
) -> None:
    """Or it would stop the request that it shares with others."""
    odd: dict[str, Any] = {field: {"a": [1]}}
    sent = json.loads(encode(operation(kind, **odd)).bulk_item())
    assert sent.get("details", sent)[field] == sent_as
