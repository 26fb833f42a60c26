"""Ids against the reference implementation, PyPI's ``pfid``."""

import os
import threading
import time
from itertools import cycle, islice

import pfid
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefactor_core import InvalidIdentifierError
from prefactor_core.identifiers import PfidFactory, is_pfid, require_pfid

_LATEST = (1 << 48) - 1
WELL_FORMED = st.from_regex(r"[0-7][0-9a-hjkmnp-tv-z]{31}", fullmatch=True)


def folded(random: bytes) -> int:
    """Return the number whose base 32 digits are the lowest five bits of each byte."""
    number = 0
    for byte in random:
        number = number << 5 | byte & 31
    return number


@given(now=st.integers(0, _LATEST), random=st.binary(min_size=22, max_size=22))
def test_a_new_id_is_laid_out_as_the_reference_reads_it(now: int, random: bytes) -> None:
    endless = cycle(random)
    new = PfidFactory(lambda: now, lambda count: bytes(islice(endless, count))).new()
    raw = pfid.decode(new)
    assert pfid.is_pfid(new)
    assert int.from_bytes(raw[:6], "big") == now
    assert int.from_bytes(raw[6:10], "big") == pfid.extract_partition(new)
    assert pfid.extract_partition(new) == folded(random[:6])
    assert int.from_bytes(raw[10:], "big") == folded(random[6:])


@given(near=WELL_FORMED, now=st.integers(0, _LATEST), random=st.binary(min_size=16, max_size=16))
def test_a_related_id_keeps_the_partition_and_nothing_else(near: str, now: int, random: bytes) -> None:
    related = PfidFactory(lambda: now, lambda count: random[:count]).related(near)
    raw = pfid.decode(related)
    assert pfid.extract_partition(related) == pfid.extract_partition(near)
    assert (int.from_bytes(raw[:6], "big"), int.from_bytes(raw[10:], "big")) == (now, folded(random))


@given(
    st.one_of(
        WELL_FORMED,
        st.text(alphabet="0178zilouZ\n", min_size=31, max_size=33),
        st.from_regex(r"[0-9a-z]{32}\n?", fullmatch=True),
        st.none() | st.integers() | st.binary(),
    )
)
def test_what_is_an_id_is_what_the_reference_takes_for_one(value: object) -> None:
    assert is_pfid(value) == pfid.is_pfid(value)


def test_every_character_is_judged_as_the_reference_does() -> None:
    for character in map(chr, range(0x250)):
        for text in (character + "0" * 31, "0" * 31 + character):
            assert is_pfid(text) == pfid.is_pfid(text), text


def test_ids_carry_the_time_of_the_wall_clock_and_differ() -> None:
    factory = PfidFactory()
    before = time.time_ns() // 1_000_000
    ids = [factory.new() for _ in range(500)]
    ids += [factory.related(ids[0]) for _ in range(500)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    assert all(before <= int.from_bytes(pfid.decode(text)[:6], "big") <= after for text in ids)
    assert len({pfid.extract_partition(text) for text in ids[:500]}) > 490, "partitions are random"


def test_ids_of_many_threads_and_of_a_forked_child_differ() -> None:
    factory = PfidFactory()
    made: list[list[str]] = [[] for _ in range(8)]
    began = threading.Barrier(len(made))

    def make(ids: list[str]) -> None:
        began.wait()
        ids += [factory.new() for _ in range(2_000)]

    threads = [threading.Thread(target=make, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in made for one in ids}) == 16_000
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, factory.new().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 32).decode()
    os.close(reading)
    os.close(writing)
    assert factory.new()[16:] != theirs[16:]


def test_require_returns_the_id_or_names_the_field() -> None:
    good = pfid.generate_example()
    assert require_pfid(good, "span_id") is good
    bad = ("span-456", "", None, 7, b"0" * 32, "8" + "0" * 31, good + "\n", good.upper(), "x" * 10_000)
    for none in bad:
        with pytest.raises(InvalidIdentifierError, match=r"^span_id: ") as refused:
            require_pfid(none, "span_id")
        assert refused.value.field == "span_id"
        assert len(str(refused.value)) < 200, "a long value is cut short"
