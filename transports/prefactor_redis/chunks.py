"""Parts of a long list that one script can take without holding up the server for long."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_BYTES_AT_ONCE: Final = 1024 * 1024


def chunks(whole: Sequence[T], most: int, size: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Yield consecutive parts.

    Args:
        whole: What to part.
        most: How many each has at most.
        size: Bytes of one; a part has at most 1 MiB of them, or is a single one.
    """
    chunk: list[T] = []
    total = 0
    for one in whole:
        bytes_ = size(one)
        if chunk and (len(chunk) == most or total + bytes_ > _BYTES_AT_ONCE):
            yield chunk
            chunk, total = [], 0
        chunk.append(one)
        total += bytes_
    if chunk:
        yield chunk
