"""What callers hand over, checked and turned into JSON once, at the call.

The bytes made here are the bytes that are sent, however often: nothing that the caller changes later
can change them.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from prefactor_core.exceptions import InvalidPayloadError

MAX_OPERATION_BYTES: Final = 1024 * 1024
"""The largest operation, in bytes of JSON: the bound that every transport can rely on."""

MAX_PAYLOAD_BYTES: Final = MAX_OPERATION_BYTES - 16 * 1024
"""What one payload may take of it: the rest is for ids, names, times and the envelope."""

UNSERIALISABLE_KEY: Final = "prefactor_unserialisable"
"""The one key of the object that stands in for a result that could not be sent."""

NOT_UNICODE: Final = "holds text that is not Unicode (a lone surrogate)"

SAFE_DEPTH: Final = 150
"""Nesting that every reader takes; most fail somewhere beyond 200."""

_LONGEST_PATH: Final = 200
"""Characters of a path in a message."""
_LEVELS_ABOVE: Final = 10
_LONG_NUMBER: Final = 4_300
"""Digits that a number may have at most: more are written, but not read again."""
_N: Final = ord("N")
_I: Final = ord("I")
_BRACKET: Final = ord("[")
_DIGITS: Final = re.compile(rb"[0-9]{%d}" % _LONG_NUMBER)


class EncodedJson(Mapping[str, Any]):
    """A JSON object, frozen as its bytes; reads as a mapping, decoding at each look.

    Attributes:
        encoded: The JSON, UTF-8.
    """

    __slots__ = ("encoded",)

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    def __getitem__(self, key: str) -> Any:
        return self.decode()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decode())

    def __len__(self) -> int:
        return len(self.decode())

    def __repr__(self) -> str:
        # Payloads appear in no log and no repr.
        return f"<JSON, {len(self.encoded)} bytes>"

    def decode(self) -> dict[str, Any]:
        """Return the object as a fresh ``dict``."""
        decoded: dict[str, Any] = from_json(self.encoded)
        return decoded


EMPTY_OBJECT: Final = EncodedJson(b"{}")


def encode_object(value: object, field: str, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> EncodedJson:
    """Serialise what pydantic can serialise to a JSON object.

    Args:
        value: A mapping, a dataclass, a pydantic model; ``None`` is the empty object.
        field: The argument's name, for the message.
        max_bytes: The most that its JSON may take.

    Raises:
        InvalidPayloadError: Something in it is not JSON, it is no object, or it is too large. The
            message names the path of the value, never the value.
    """
    if value is None:
        return EMPTY_OBJECT
    if type(value) is EncodedJson:
        return value
    try:
        encoded = to_json(value)
    except Exception as error:  # serialisers of the caller's own classes may raise anything
        raise _problem_of(value, field) from error
    if not encoded.startswith(b"{"):
        raise InvalidPayloadError(field, f"expected a JSON object, got {type(value).__name__}")
    if _may_be_invalid(encoded) and not _is_strict_json(encoded):
        raise _problem_of(value, field)
    if len(encoded) > max_bytes:
        raise InvalidPayloadError(
            field, f"takes {len(encoded):,} bytes as JSON, at most {max_bytes:,} can be sent"
        )
    return EncodedJson(encoded)


def as_object(value: object, field: str) -> dict[str, Any]:
    """Return a shallow copy of a mapping, or what pydantic makes of a dataclass or a model, to be added to.

    Raises:
        InvalidPayloadError: It is neither, or what it holds cannot be sent.
    """
    if type(value) is dict:
        return dict(value)
    if type(value) is EncodedJson:
        return value.decode()
    if isinstance(value, Mapping):
        try:
            return dict(value)
        except Exception as error:  # a mapping of the caller's own may raise anything
            raise InvalidPayloadError(field, f"{type(value).__name__} cannot be read") from error
    return encode_object(value, field).decode()


def snapshot(value: object, field: str) -> dict[str, Any]:
    """Return a deep copy as plain JSON. What cannot be sent is taken ``as_object``, to be refused later."""
    try:
        return encode_object(value, field).decode()
    except InvalidPayloadError:
        return as_object(value, field)


def unserialisable_marker(error: InvalidPayloadError) -> EncodedJson:
    """Return the object that is sent in place of a result that ``error`` refused."""
    readable = str(error).encode("utf-8", "backslashreplace").decode()
    return EncodedJson(to_json({UNSERIALISABLE_KEY: readable}))


def _may_be_invalid(encoded: bytes) -> bool:
    """Whether JSON that was written may be none, or not be readable: worth the price of reading it."""
    # One byte is found several times as fast as a word, and most payloads hold little that is nested.
    return (
        (_N in encoded and b"NaN" in encoded)
        or (_I in encoded and b"Infinity" in encoded)
        or (
            (encoded.find(b"{", 1) > 0 or _BRACKET in encoded)
            and encoded.count(b"{") + encoded.count(b"[") > SAFE_DEPTH
        )
        or (len(encoded) > _LONG_NUMBER and _DIGITS.search(encoded) is not None)
    )


def _is_strict_json(encoded: bytes) -> bool:
    # The words may as well stand inside a string, and many brackets side by side.
    try:
        # An envelope, or a request, puts it some levels deeper, where it has to be readable still.
        from_json(b"[" * _LEVELS_ABOVE + encoded + b"]" * _LEVELS_ABOVE, allow_inf_nan=False)
    except ValueError:
        return False
    return True


# -- where a value stopped being JSON: the slow way round, taken only once serialising has failed


def _problem_of(value: object, field: str) -> InvalidPayloadError:
    """Return the error that names the first value that is not JSON by its path, from ``field`` on."""
    try:
        found = _search(value, field, ())
    except Exception:  # noqa: BLE001 -- containers of the caller's own may raise anything
        found = None
    path, problem = found if found is not None else (field, "cannot be serialised as JSON")
    path = path.encode("utf-8", "backslashreplace").decode()
    if len(path) > _LONGEST_PATH:
        path = f"{path[: _LONGEST_PATH - 3]}..."
    return InvalidPayloadError(path, problem)


def _search(value: object, path: str, above: tuple[int, ...]) -> tuple[str, str] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"{value} is not JSON"
    children = _children(value)
    if children is None:
        return None if _serialises(value) else (path, _leaf_problem(value))
    if id(value) in above:
        return path, "refers to itself"
    if len(above) > SAFE_DEPTH:
        return path, "is nested too deeply"
    for step, child in children:
        found = _search(child, f"{path}{step}", (*above, id(value)))
        if found is not None:
            return found
    # Every part is fine, and the whole is not: its own serialiser, or one of its keys.
    return None if _serialises(value) else (path, f"{type(value).__name__} cannot be serialised as JSON")


def _children(value: object) -> list[tuple[str, object]] | None:
    """Return the parts of a container with their path steps; ``None`` for a leaf."""
    if isinstance(value, Mapping):
        return [(f".{key}", child) for key, child in value.items()]
    if isinstance(value, BaseModel):
        return [(f".{name}", child) for name, child in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, str | bytes | bytearray):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    return None


def _serialises(value: object) -> bool:
    try:
        from_json(to_json(value), allow_inf_nan=False)
    except Exception:  # noqa: BLE001 -- the caller's own serialisers may raise anything
        return False
    return True


def _leaf_problem(value: object) -> str:
    if isinstance(value, str):
        return NOT_UNICODE
    if isinstance(value, bytes | bytearray):
        return "holds bytes that are not UTF-8: encode them first (base64, say)"
    if isinstance(value, int):
        return "is an integer of too many digits"
    return f"{type(value).__name__} cannot be serialised as JSON"
