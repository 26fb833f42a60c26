"""Ids of a stream's entries, ``milliseconds-sequence``, and their order."""

from typing import Final

BEGINNING: Final = b"0-0"
"""Below every entry's id."""


def order(stream_id: bytes) -> tuple[int, int]:
    """Return what ids are compared by."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def seconds(stream_id: bytes) -> float:
    """Return when the entry was published, in seconds since the Unix epoch by the broker's clock."""
    return order(stream_id)[0] / 1_000
