"""Where a value stopped being JSON, and why: the slow way round, taken only once serialising has failed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from prefactor_core.exceptions import InvalidPayloadError

NOT_UNICODE: Final = "holds text that is not Unicode (a lone surrogate)"

SAFE_DEPTH: Final = 150
"""Nesting that every reader takes; they give up somewhere beyond 200."""

_LONGEST_PATH: Final = 200
"""Characters of a path in a message."""


def problem_of(value: object, field: str) -> InvalidPayloadError:
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
