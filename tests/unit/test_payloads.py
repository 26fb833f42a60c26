"""What callers hand over: what is taken, what is refused and where, and that the bytes are final."""

import collections
import enum
import json
import math
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from prefactor_core import InvalidPayloadError
from prefactor_core.payloads import (
    EMPTY_OBJECT,
    MAX_OPERATION_BYTES,
    MAX_PAYLOAD_BYTES,
    UNSERIALISABLE_KEY,
    EncodedJson,
    as_object,
    encode_object,
    unserialisable_marker,
)


class Model(BaseModel):
    when: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    inner: list[Any] = Field(default_factory=list)


@dataclass
class Data:
    score: Any = 1
    rest: list[Any] = field(default_factory=list)


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Raising(BaseModel):
    secret: str = "hidden"

    @field_serializer("secret")
    def _refuse(self, value: str) -> str:
        raise RuntimeError(f"no {value}")


class HostileKey:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class HostileItems(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class HostileMapping(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError("no value")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


TAKEN: list[tuple[object, dict[str, Any]]] = [
    (None, {}),
    ({}, {}),
    ({"a": [1, 2.5, True, None, "ü\U0001f600"]}, {"a": [1, 2.5, True, None, "ü\U0001f600"]}),
    (Model(), {"when": "2026-01-02T03:04:05Z", "inner": []}),
    (Data(rest=[Data()]), {"score": 1, "rest": [{"score": 1, "rest": []}]}),
    ({"m": Model(inner=[UUID])}, {"m": {"when": "2026-01-02T03:04:05Z", "inner": [str(UUID)]}}),
    ({"t": datetime(2026, 1, 2, tzinfo=UTC)}, {"t": "2026-01-02T00:00:00Z"}),
    ({"d": date(2026, 1, 2)}, {"d": "2026-01-02"}),
    ({"u": UUID, "p": pathlib.Path("a/b")}, {"u": str(UUID), "p": "a/b"}),
    ({"s": {1}, "f": frozenset({2})}, {"s": [1], "f": [2]}),
    ({"t": (3,), "q": collections.deque([4])}, {"t": [3], "q": [4]}),
    ({"e": Colour.RED, "n": Point(1, 2)}, {"e": "red", "n": [1, 2]}),
    ({"d": Decimal("1.50"), "i": IPv4Address("127.0.0.1")}, {"d": "1.50", "i": "127.0.0.1"}),
    ({"t": timedelta(seconds=90)}, {"t": "PT1M30S"}),
    ({"b": b"text", "g": (number for number in (1, 2))}, {"b": "text", "g": [1, 2]}),
    ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
    ({"a": "NaN", "Infinity": "-Infinity"}, {"a": "NaN", "Infinity": "-Infinity"}),
    ({"b": Decimal("NaN"), "a": "NaN"}, {"b": "NaN", "a": "NaN"}),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
]


def test_whatever_pydantic_serialises_is_taken(subtests: pytest.Subtests) -> None:
    for value, expected in TAKEN:
        with subtests.test(repr(value)):
            encoded = encode_object(value, "payload")
            assert json.loads(encoded.encoded) == expected
            assert dict(encoded) == encoded.decode() == expected


cycle: dict[str, Any] = {"list": [1]}
cycle["list"].append(cycle)

REFUSED: list[tuple[object, str, str]] = [
    ({"a": math.nan}, "payload.a", "nan is not JSON"),
    ({"a": [{"b": (1, math.inf)}]}, "payload.a[0].b[1]", "inf is not JSON"),
    ({"a": {"b": -math.inf}}, "payload.a.b", "-inf is not JSON"),
    ({"a": "NaN", "b": math.nan}, "payload.b", "nan is not JSON"),
    ({"a": Data(rest=[0, math.nan])}, "payload.a.rest[1]", "nan is not JSON"),
    (Data(score=math.nan), "payload.score", "nan is not JSON"),
    ({"a": {math.nan}}, "payload.a[0]", "nan is not JSON"),
    ({"a": ["\ud800"]}, "payload.a[0]", "lone surrogate"),
    ({"a": {"b": b"\xff"}}, "payload.a.b", "not UTF-8"),
    ({"a": bytearray(b"\xff")}, "payload.a", "not UTF-8"),
    ({"a": [1, object()]}, "payload.a[1]", "object cannot be serialised"),
    ({"a": {"b": lambda: None}}, "payload.a.b", "function cannot be serialised"),
    (Model(inner=[1, {"x": object()}]), "payload.inner[1].x", "object cannot be serialised"),
    (cycle, "payload.list[1]", "refers to itself"),
    ({"a": Raising()}, "payload.a", "cannot be serialised"),
    ({"a": [Data(score=Raising())]}, "payload.a[0].score", "cannot be serialised"),
    ({"a": {"b": collections.UserDict({"c": 1})}}, "payload.a.b", "cannot be serialised"),
    ({"a": {"\ud800": 1}}, "payload.a", "cannot be serialised"),
    ([1], "payload", "expected a JSON object, got list"),
    ("{}", "payload", "expected a JSON object, got str"),
    (7, "payload", "expected a JSON object, got int"),
    (object(), "payload", "object cannot be serialised"),
    (math.nan, "payload", "expected a JSON object, got float"),
    # Hostile objects raise nothing else.
    ({HostileKey(): object()}, "payload", ""),
    ({HostileKey(): 1}, "payload", ""),
    (HostileItems(x=object()), "payload", ""),
    ({"x": HostileItems(x=object())}, "payload", ""),
    ({"x": HostileMapping()}, "payload", ""),
    (HostileMapping(), "payload", ""),
]


def test_the_rest_is_refused_with_the_path_of_the_value(subtests: pytest.Subtests) -> None:
    for number, (value, path, problem) in enumerate(REFUSED):
        with subtests.test(f"{path}: {problem}", number=number):
            with pytest.raises(InvalidPayloadError, match=r"^payload") as refused:
                encode_object(value, "payload")
            assert refused.value.field == path
            assert problem in str(refused.value)


def test_what_is_nested_too_deeply_is_refused_and_what_is_taken_can_be_read_again() -> None:
    for depth in (260, 100_000):
        with pytest.raises(InvalidPayloadError, match="nested too deeply"):
            encode_object(nested(depth), "payload")
    values = [nested(depth) for depth in (180, 199, 200, 201, 253, 254, 255)]
    for value in [*values, {"n": 10**4299}, {"n": 10**4300}]:
        with suppress(InvalidPayloadError):
            assert encode_object(value, "payload").decode() == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": object}, {"a": object}),
        (collections.UserDict({"a": 1}), {"a": 1}),
        (EncodedJson(b'{"a":1}'), {"a": 1}),
        (Data(), {"score": 1, "rest": []}),
        (Model(), {"when": "2026-01-02T03:04:05Z", "inner": []}),
        (None, {}),
    ],
)
def test_as_object_makes_a_dictionary_of_its_own(value: object, expected: dict[str, Any]) -> None:
    made = as_object(value, "result_payload")
    assert type(made) is dict
    assert made == expected
    assert made is not value


def test_as_object_refuses_what_is_none() -> None:
    for value in ([("a", 1)], "text", 7, object(), Data(score=object()), HostileMapping()):
        with pytest.raises(InvalidPayloadError, match=r"^result_payload"):
            as_object(value, "result_payload")


def test_the_message_shows_no_content() -> None:
    for value in ({"a": "S3CRET\ud800"}, {"a": b"S3CRET\xff"}, {"a": ["S3CRET", object()]}):
        with pytest.raises(InvalidPayloadError) as refused:
            encode_object(value, "payload")
        assert "S3CRET" not in str(refused.value)


def test_the_size_limit_is_exact_and_leaves_room_in_an_operation() -> None:
    fits = "x" * (MAX_PAYLOAD_BYTES - len('{"a":""}'))
    assert len(encode_object({"a": fits}, "payload").encoded) == MAX_PAYLOAD_BYTES
    with pytest.raises(InvalidPayloadError, match=r"^payload: takes 1,032,193 bytes"):
        encode_object({"a": fits + "x"}, "payload")
    with pytest.raises(InvalidPayloadError, match="at most 10 can be sent"):
        encode_object({"a": "ü" * 3}, "payload", max_bytes=10)
    assert MAX_PAYLOAD_BYTES < MAX_OPERATION_BYTES == 1024 * 1024


def test_encoded_json_reads_as_a_mapping_and_its_repr_shows_no_content() -> None:
    encoded = encode_object({"a": {"b": "S3CRET"}, "c": 2}, "payload")
    assert (len(encoded), list(encoded), encoded["c"], "a" in encoded) == (2, ["a", "c"], 2, True)
    assert encoded == {"a": {"b": "S3CRET"}, "c": 2}
    assert encoded != EMPTY_OBJECT
    assert encode_object(encoded, "payload") is encoded
    assert "S3CRET" not in repr(encoded) + str(encoded) + f"{encoded}"
    with pytest.raises(KeyError):
        encoded["missing"]
    with pytest.raises(TypeError):
        encoded["c"] = 3  # type: ignore[index]


def test_the_marker_says_what_was_wrong_and_can_always_be_sent() -> None:
    too_large: list[dict[str, Any]] = [{"k" * 3_000_000: object()}, {"x": "y" * 3_000_000}, nested(300)]
    for value in ({"a": math.nan}, {"\ud800": object()}, *too_large):
        with pytest.raises(InvalidPayloadError) as refused:
            encode_object(value, "result_payload")
        marker = unserialisable_marker(refused.value)
        assert list(marker) == [UNSERIALISABLE_KEY]
        assert marker[UNSERIALISABLE_KEY].startswith("result_payload")
        assert len(marker.encoded) < 10_000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    )
)
def test_a_value_is_either_strict_json_or_refused_at_itself(value: object) -> None:
    def refuse(constant: str) -> object:
        raise AssertionError(constant)

    try:
        encoded = encode_object({"v": value}, "payload")
    except InvalidPayloadError as error:
        refused = error.field
    else:
        assert list(json.loads(encoded.encoded, parse_constant=refuse)) == ["v"]
        return
    assert refused.startswith("payload.v")
