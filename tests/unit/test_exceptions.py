"""The hierarchy of errors: as drawn, picklable, readable."""

import copy
import pickle
import re
from typing import Any

import pytest

from prefactor_core import exceptions
from prefactor_core.exceptions import (
    InvalidInputError,
    OperationError,
    PrefactorCoreError,
    PrefactorTelemetryFailureError,
    SpanNotFoundError,
)

OURS = sorted(
    (
        value
        for value in vars(exceptions).values()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__ == exceptions.__name__
    ),
    key=lambda cls: cls.__name__,
)


def _drawn() -> dict[str, set[str]]:
    """Return each class in the docstring's drawing with its bases."""
    bases: dict[str, set[str]] = {}
    path: list[str] = []
    drawing = (exceptions.__doc__ or "").split("::", 1)[1].split("\n\n")[1]
    for line in drawing.splitlines():
        match = re.match(r"    (?P<tree>[│├└─ ]*)(?P<name>\w+)(?: \(also (?P<also>\w+)\))?", line)
        assert match is not None, line
        del path[len(match["tree"]) // 4 :]
        bases[match["name"]] = {base for base in (*path[-1:], match["also"]) if base}
        path.append(match["name"])
    return bases


def test_the_drawing_is_the_tree() -> None:
    real = {cls.__name__: {base.__name__ for base in cls.__bases__} for cls in OURS}
    drawn = _drawn()
    assert len(drawn) == len(OURS) > 10
    assert drawn.pop("PrefactorCoreError") == set()
    assert real.pop("PrefactorCoreError") == {"Exception"}
    assert drawn == real
    assert all(issubclass(cls, PrefactorCoreError) for cls in OURS)


def _make(cls: type[Exception]) -> Exception:
    if issubclass(cls, InvalidInputError):
        return cls("payload.messages[3]", "is no good")
    if cls is OperationError:
        return OperationError("what went wrong", "CREATE_SPAN")
    if cls is PrefactorTelemetryFailureError:
        return PrefactorTelemetryFailureError(
            "what went wrong", cause=KeyError("why"), operation_type="CREATE_SPAN", dropped_operations=7
        )
    return cls("what went wrong")


def _attributes(error: BaseException) -> dict[str, Any]:
    return {
        name: repr(value) if isinstance(value, Exception) else value for name, value in vars(error).items()
    }


def test_pickling_and_copying_keep_message_and_attributes(subtests: pytest.Subtests) -> None:
    for cls in OURS:
        error = _make(cls)
        for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
            with subtests.test(cls.__name__):
                assert type(copied) is cls
                assert str(copied) == str(error) != ""
                assert _attributes(copied) == _attributes(error)


def test_the_published_attributes() -> None:
    invalid = InvalidInputError("payload.a", "is no good")
    assert (invalid.field, str(invalid)) == ("payload.a", "payload.a: is no good")
    assert OperationError("m").operation_type is None
    cause = ValueError("x")
    failure = PrefactorTelemetryFailureError("m", cause=cause)
    assert (failure.cause, failure.operation_type, failure.dropped_operations) == (cause, None, 0)
    missing = SpanNotFoundError("span 'x' is not open")
    assert isinstance(missing, KeyError)
    assert str(missing) == "span 'x' is not open", "a key error that can be read"
