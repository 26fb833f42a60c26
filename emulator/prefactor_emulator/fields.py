"""Reading the fields of a JSON body, collecting every complaint before refusing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar, cast

from prefactor_emulator.ids import is_pfid
from prefactor_emulator.model import JsonObject, Refusal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value that a field may hold.

    Attributes:
        expected: How to tell a user what belongs there.
        accepts: Whether a JSON value is of this kind.
        blank: Stands in for a wrong value until all fields are read and the body is refused.
    """

    expected: str
    accepts: Callable[[object], bool]
    blank: T


def is_timestamp(value: object) -> bool:
    """Tell whether a JSON value is an ISO 8601 date and time with its offset from UTC."""
    if not isinstance(value, str):
        return False
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


PFID: Final[Kind[str]] = Kind("must be a PFID: 32 characters of lower-case base32", is_pfid, "")
TEXT: Final[Kind[str]] = Kind("must be a non-empty string", _is_text, "")
FLAG: Final[Kind[bool]] = Kind("must be true or false", lambda value: isinstance(value, bool), blank=False)
LIST: Final[Kind[list[object]]] = Kind("must be a list", lambda value: isinstance(value, list), [])
OBJECT: Final[Kind[JsonObject]] = Kind("must be a JSON object", lambda value: isinstance(value, dict), {})
TIMESTAMP: Final[Kind[str]] = Kind(
    "must be an ISO 8601 date and time with an offset, like 2026-01-31T12:00:00.000Z",
    is_timestamp,
    "",
)


def one_of(values: Iterable[str]) -> Kind[str]:
    """Make the kind of field that holds one of a few words."""
    allowed = tuple(values)
    return Kind(f"must be one of {', '.join(allowed)}", lambda value: value in allowed, "")


class Complaints:
    """What is wrong with a body, by field."""

    def __init__(self) -> None:
        self._by_field: dict[str, list[str]] = {}

    def add(self, field: str, complaint: str) -> None:
        """Note one thing that is wrong."""
        self._by_field.setdefault(field, []).append(complaint)

    def refuse_if_any(self) -> None:
        """Refuse the request as a whole once all of it has been read.

        Raises:
            Refusal: Anything was wrong.
        """
        if self._by_field:
            raise invalid(self._by_field)


def invalid(errors: dict[str, list[str]]) -> Refusal:
    """Build the refusal of a body whose fields are wrong."""
    names = ", ".join(errors)
    return Refusal(422, "validation_error", f"these fields are not acceptable: {names}", errors)


class Fields:
    """The fields of one JSON object.

    Args:
        values: The object.
        complaints: Where to note what is wrong with it.
        prefix: Where the object stands in the body, like `details.`.
    """

    def __init__(self, values: JsonObject, complaints: Complaints, prefix: str = "") -> None:
        self.values = values
        self._complaints = complaints
        self._prefix = prefix

    def required(self, name: str, kind: Kind[T]) -> T:
        """Read a field that must be there."""
        if name not in self.values:
            self.complain(name, "is required")
            return kind.blank
        return self._checked(name, self.values[name], kind)

    def optional(self, name: str, kind: Kind[T]) -> T | None:
        """Read a field that may be missing or null."""
        value = self.values.get(name)
        return None if value is None else self._checked(name, value, kind)

    def nullable(self, name: str, kind: Kind[T]) -> T | None:
        """Read a field that must be there and in which null has a meaning."""
        if name not in self.values:
            self.complain(name, "is required (it may be null)")
            return None
        return self.optional(name, kind)

    def inside(self, name: str) -> "Fields":
        """Read the object in a field that must be there."""
        if not OBJECT.accepts(self.values.get(name)):
            self.required(name, OBJECT)
            return Fields({}, Complaints())  # one complaint is enough for all that is not there
        return Fields(self.required(name, OBJECT), self._complaints, f"{self._prefix}{name}.")

    def each(self, name: str) -> list["Fields"]:
        """Read the objects in a list that may be missing."""
        found = []
        listed = self.optional(name, LIST)
        for index, item in enumerate(listed or ()):
            if isinstance(item, dict):
                prefix = f"{self._prefix}{name}.{index}."
                found.append(Fields(cast("JsonObject", item), self._complaints, prefix))
            else:
                self.complain(f"{name}.{index}", OBJECT.expected)
        return found

    def complain(self, name: str, complaint: str) -> None:
        """Note that a field of this object is wrong."""
        self._complaints.add(self._prefix + name, complaint)

    def _checked(self, name: str, value: object, kind: Kind[T]) -> T:
        if kind.accepts(value):
            return cast("T", value)
        self.complain(name, kind.expected)
        return kind.blank
