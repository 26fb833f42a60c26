"""Replies of a server: what they can be, the checks that give them types, and the ids of stream entries."""

from typing import Final, TypeAlias, TypeVar, Union

from prefactor_core.transport import BrokerError

T = TypeVar("T")
Word: TypeAlias = bytes | str | int
"""A part of a command."""
Reply: TypeAlias = Union[bytes, int, "list[Reply]", None]
"""What a server answers."""

BEGINNING: Final = b"0-0"
"""Below the id of every entry of a stream; ids are ``milliseconds-sequence``."""


def integer(reply: Reply) -> int:
    """Return a reply that is a whole number."""
    return _is(int, reply)


def data(reply: Reply) -> bytes:
    """Return a reply that is a string."""
    return _is(bytes, reply)


def maybe_data(reply: Reply) -> bytes | None:
    """Return a reply that is a string or nothing."""
    return None if reply is None else data(reply)


def text(reply: Reply) -> str:
    """Return a reply that is a string, as text."""
    return data(reply).decode("utf-8", "replace")


def items(reply: Reply) -> list[Reply]:
    """Return a reply that is a list."""
    return _is(list, reply)


def entries(reply: Reply, field: bytes) -> list[tuple[bytes, bytes]]:
    """Return the entries of a stream: the id of each, and what its field holds.

    One without that field is not of ours; all of it is returned then, so that it can be shown.
    """
    found: list[tuple[bytes, bytes]] = []
    for entry in items(reply):
        number, fields = items(entry)
        # An entry that was deleted meanwhile may be listed without its fields.
        words = [data(word) for word in items(fields)] if fields is not None else []
        value = words[1] if len(words) == 2 and words[0] == field else b" ".join(words)
        found.append((data(number), value))
    return found


def order(stream_id: bytes) -> tuple[int, int]:
    """Return what ids of entries are compared by."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _is(kind: type[T], reply: Reply) -> T:
    if not isinstance(reply, kind):
        raise BrokerError(f"Redis answered {type(reply).__name__} where {kind.__name__} was expected")
    return reply
