"""Bodies as they come: plain and gzip, whole and broken, and none beyond the limit."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterable

import pytest

from prefactor_core.api.body import BodyError, Decoder

LIMIT = 1_000_000
TEXT = b'{"status":"success"}' * 1_000
TOO_LARGE = "larger than 0.95"


def read(chunks: Iterable[bytes], encoding: str = "", announced: str | None = None) -> bytes:
    decoder = Decoder(encoding, announced, LIMIT)
    body = b"".join(piece for chunk in chunks for piece in decoder.decode(chunk))
    decoder.finish()
    return body


def in_chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("encoding", ["", "identity", " GZIP ", "gzip", "x-gzip"])
def test_a_whole_body(encoding: str) -> None:
    for text in (TEXT, b"x" * LIMIT, b"x" * 262_144, b"x" * 524_288):
        data = gzip.compress(text) if "gzip" in encoding.lower() else text
        for size in (1, 7, 65_536, 10_000_000):
            if size * 100_000 >= len(data):
                assert read(in_chunks(data, size), encoding, str(len(data))) == text, (len(text), size)


def test_gzip_of_several_members() -> None:
    data = gzip.compress(TEXT) + gzip.compress(b"") + gzip.compress(b"x" * 500_000)
    for size in (1, 7, 65_536):
        assert read(in_chunks(data, size), "gzip") == TEXT + b"x" * 500_000, size


def test_an_empty_body_is_empty_whatever_its_encoding() -> None:
    for encoding in ("", "gzip", "br", "utf-8"):
        assert read([], encoding) == read([b""], encoding) == b"", encoding


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "gzip,br", "\x00"])
def test_an_encoding_that_was_not_offered_is_not_read(encoding: str) -> None:
    with pytest.raises(BodyError, match="was not asked for"):
        read([gzip.compress(TEXT)], encoding)


NO_GZIP = {
    "plain": TEXT,
    "zlib": zlib.compress(TEXT),
    "a bad head": gzip.compress(TEXT)[:2] + b"\xff" * 100,
    "a bad checksum": gzip.compress(TEXT)[:-8] + bytes(8),
    "something behind it": gzip.compress(TEXT) + b"something else",
}


@pytest.mark.parametrize("data", NO_GZIP.values(), ids=NO_GZIP)
def test_what_is_no_gzip_is_not_read(data: bytes) -> None:
    for size in (1, 65_536):
        with pytest.raises(BodyError, match="not the gzip data"):
            read(in_chunks(data, size), "gzip")


@pytest.mark.parametrize("missing", [1, 8, 20])
def test_gzip_that_ends_too_soon_is_not_read(missing: int) -> None:
    for data in (gzip.compress(TEXT), gzip.compress(TEXT) + gzip.compress(TEXT)):
        with pytest.raises(BodyError, match="end too soon"):
            read([data[:-missing]], "gzip")


def refused_at(chunks: Iterable[bytes], encoding: str) -> int:
    """Return how much was decoded of what is too large."""
    decoder = Decoder(encoding, None, LIMIT)
    decoded = 0
    with pytest.raises(BodyError, match=TOO_LARGE) as caught:
        for chunk in chunks:
            for piece in decoder.decode(chunk):
                decoded += len(piece)
    assert caught.value.too_large
    return decoded


def test_it_is_cut_off_at_the_limit_and_much_of_nothing_is_too_large_as_well() -> None:
    assert refused_at([b"x" * LIMIT, b"x"], "") == LIMIT
    assert refused_at([gzip.compress(b"x" * (LIMIT + 1))], "gzip") <= LIMIT
    assert refused_at([gzip.compress(gzip.compress(b"x" * LIMIT)) + gzip.compress(b"x" * LIMIT)], "gzip") > 0
    empty = gzip.compress(b"")
    assert refused_at([empty] * (LIMIT // len(empty) + 1), "gzip") == 0


def test_what_is_announced_as_too_large_is_refused_at_once() -> None:
    for announced in (str(LIMIT + 1), "9" * 18, "9" * 10_000):
        with pytest.raises(BodyError, match=TOO_LARGE):
            Decoder("", announced, LIMIT)
    Decoder("", str(LIMIT), LIMIT)


def test_a_bomb_needs_no_memory() -> None:
    data = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    decoded = refused_at([data], "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < decoded <= LIMIT
    assert peak < 2 * LIMIT


@pytest.mark.parametrize("values", [b"{},", b"[],", b"0,", b"[[[{", b'{"a":'])
def test_more_values_than_memory_is_for_are_too_large(values: bytes) -> None:
    decoder = Decoder("", None, 64 * 1024 * 1024)
    few = values * (400_000 // len(values) * 5)
    assert b"".join(decoder.decode(few)) == few  # as many bytes of text are read
    with pytest.raises(BodyError, match="2,000,000 values") as caught:
        for _ in range(20):
            for _ in decoder.decode(few):
                pass
    assert caught.value.too_large


def test_text_is_as_long_as_the_limit_allows() -> None:
    decoder = Decoder("", None, 64 * 1024 * 1024)
    for _ in range(64):
        for _ in decoder.decode(b"x" * 1024 * 1024):
            pass
