"""The emulator's ids against the reference implementation."""

import time

import pfid

from prefactor_core.identifiers import is_pfid
from prefactor_emulator.ids import id_of, new_id

EXAMPLES = [pfid.generate_example() for _ in range(200)]


def test_the_reference_takes_ours_and_ours_the_reference() -> None:
    for reference in EXAMPLES:
        assert is_pfid(reference)
        for ours in (new_id(reference), id_of("environment", reference, relative=reference)):
            assert pfid.is_pfid(ours)
            assert pfid.extract_partition(ours) == pfid.extract_partition(reference)


def test_a_name_has_the_same_id_every_time_and_no_other_name_has_it() -> None:
    names = [("account", "a"), ("account", "b"), ("a", "account"), ("accounta",), ("\ud800",)]
    assert [id_of(*each) for each in names] == [id_of(*each) for each in names]
    assert len({id_of(*each) for each in names}) == len(names)


def test_ids_carry_the_time_and_are_not_repeated() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    for text in ids:
        number = sum(alphabet.index(c) << 5 * place for place, c in enumerate(reversed(text)))
        assert before <= number >> 110 <= after


def test_what_is_no_id() -> None:
    values = [None, 1, b"0" * 32, "", "0" * 31, "0" * 33, "8" + "0" * 31, "0" * 31 + "\n"]
    assert not any(map(is_pfid, [*values, *("0" * 31 + dead for dead in "ilouA")]))
