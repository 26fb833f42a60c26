"""Which partition an instance belongs to, the same for ever; and the fair shares of workers."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefactor_core.broker.assignment import assignment_size
from prefactor_core.broker.driver import Fleet
from prefactor_core.broker.envelope import partition_of

PARTITIONS = st.integers(1, 1_024)
SIZES = st.integers(1, 2_000)

# Written down once. A change here would tear instances apart that are half published.
GOLDEN = {
    "": (0, 0, 0, 4, 692),
    "a": (0, 1, 2, 15, 559),
    "0" + "1" * 31: (0, 0, 2, 10, 714),
    "01JZX9QK3V8Y2M4N6P7R5S0T1W": (0, 0, 2, 4, 468),
    "agent-instance-42": (0, 0, 2, 2, 178),
    "ünïcödé": (0, 1, 2, 5, 501),
    "\ud800": (0, 0, 2, 8, 360),
    "x" * 1000: (0, 1, 1, 7, 535),
    "0123456789abcdef-1": (0, 1, 1, 1, 305),
    "INSTANCE": (0, 1, 2, 11, 1019),
}


def test_the_hash_never_changes() -> None:
    found = {name: tuple(partition_of(name, count) for count in (1, 2, 3, 16, 1024)) for name in GOLDEN}
    assert found == GOLDEN


@pytest.mark.parametrize("partitions", [2, 3, 16, 64])
def test_instances_are_spread_evenly(partitions: int) -> None:
    each = 1_000
    counts = Counter(partition_of(f"instance-{number}", partitions) for number in range(each * partitions))
    assert sorted(counts) == list(range(partitions))
    assert max(abs(count - each) for count in counts.values()) < 0.15 * each


@given(PARTITIONS, SIZES)
def test_with_ranks_the_shares_add_up_and_differ_by_at_most_one(partitions: int, size: int) -> None:
    shares = [assignment_size(partitions, Fleet(size, rank)) for rank in range(size)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@given(PARTITIONS, SIZES)
def test_without_ranks_everybody_may_take_the_larger_share(partitions: int, size: int) -> None:
    assert assignment_size(partitions, Fleet(size)) == math.ceil(partitions / size)


def test_examples_of_shares() -> None:
    examples = [(Fleet(1), 16), (Fleet(1, 0), 16), (Fleet(3), 6), (Fleet(3, 0), 6), (Fleet(3, 1), 5)]
    assert [assignment_size(16, fleet) for fleet, _ in examples] == [share for _, share in examples]
    assert [assignment_size(4, fleet) for fleet in (Fleet(5), Fleet(5, 3), Fleet(5, 4))] == [1, 1, 0]
