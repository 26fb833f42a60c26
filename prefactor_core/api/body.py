"""A reply's body, bounded and decompressed while it is read.

Two bounds: its bytes, and the values that its JSON may hold. Replies echo payloads, and as Python objects
64 MiB of empty lists take 1.6 GB and hold the event loop for seconds.
"""

import zlib
from collections.abc import Iterator
from typing import Final

ACCEPTED_ENCODING: Final = "gzip"
"""What requests say that they take. No other compression is read: each is one more way to fill memory."""

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_PLAIN: Final = frozenset({"", "identity"})
_PIECE: Final = 256 * 1024
"""Bytes that are decompressed at a time; a thousandth of that may be all that came for them."""
_GZIP_WINDOW: Final = 31  # the largest, in gzip's wrapper
_MOST_DIGITS: Final = 18
_MOST_VALUES: Final = 2_000_000
"""Values of a body's JSON, about. Each takes some hundred bytes as an object, at most."""
_FEW: Final = 1024 * 1024
"""Bytes at the beginning of a body whose values are not counted: nearly all bodies are smaller."""


class BodyError(Exception):
    """A body that cannot be read; the message says why, and quotes nothing of it."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class Decoder:
    """Decodes one body as it comes: its ``Content-Encoding``, its ``Content-Length`` if it has one.

    ``limit`` is how many bytes it may have, both as it comes and decompressed.

    Raises:
        BodyError: It is known already that it cannot be read.
    """

    def __init__(self, encoding: str, announced: str | None, limit: int) -> None:
        name = encoding.strip().lower()
        self._known = name in _GZIP | _PLAIN
        self._gzip = zlib.decompressobj(_GZIP_WINDOW) if name in _GZIP else None
        self._limit = limit
        self._came = 0
        self._decoded = 0
        self._values = 0
        if announced is not None and (len(announced) > _MOST_DIGITS or int(announced) > limit):
            raise self._too_large()

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what ``chunk`` holds, in pieces that stay within the limit. Raises ``BodyError``."""
        self._came += len(chunk)
        if chunk and not self._known:
            raise BodyError("its compression was not asked for")
        if self._came > self._limit:
            raise self._too_large()  # before it is decompressed: much of nothing is too much as well
        for piece in (chunk,) if self._gzip is None else self._unzip(self._gzip, chunk):
            self._decoded += len(piece)
            if self._decoded > self._limit:
                raise self._too_large()
            if self._decoded > _FEW:
                # Every value stands behind one of these, or behind the name that does.
                self._values += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
                if self._values > _MOST_VALUES:
                    raise BodyError(f"it holds more than {_MOST_VALUES:,} values", too_large=True)
            yield piece

    def finish(self) -> None:
        """Note the end of the body. Raises ``BodyError`` if its compressed data have not ended."""
        if self._gzip is not None and self._came and not self._gzip.eof:
            raise BodyError("its gzip data end too soon")

    def _unzip(self, member: "zlib._Decompress", rest: bytes) -> Iterator[bytes]:
        piece = b""
        while rest or (len(piece) == _PIECE and not member.eof):
            if member.eof:  # gzip data may have several members, one after the other (RFC 1952, 2.2)
                member = self._gzip = zlib.decompressobj(_GZIP_WINDOW)
            try:
                piece = member.decompress(rest, _PIECE)
            except zlib.error:
                raise BodyError("it is not the gzip data that it should be") from None
            yield piece
            rest = member.unused_data if member.eof else member.unconsumed_tail

    def _too_large(self) -> BodyError:
        return BodyError(f"it is larger than {self._limit / 2**20:g} MiB", too_large=True)
