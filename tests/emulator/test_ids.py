"""The emulator's ids against the reference implementation."""

import time

import pfid

from prefactor_emulator.ids import is_pfid, new_id, partition_of

EXAMPLES = [pfid.generate_example() for _ in range(200)]


def test_the_reference_takes_ours_and_ours_the_reference() -> None:
    for reference in EXAMPLES:
        assert is_pfid(reference)
        assert partition_of(reference) == pfid.extract_partition(reference)
        ours = new_id(reference)
        assert pfid.is_pfid(ours)
        assert pfid.extract_partition(ours) == pfid.extract_partition(reference)


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
