"""Fair shares of the partitions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefactor_core.broker.assignment import assignment_size
from prefactor_core.broker.driver import Fleet

PARTITIONS = st.integers(1, 1_024)
SIZES = st.integers(1, 2_000)


@given(PARTITIONS, SIZES)
def test_with_ranks_the_shares_add_up_and_differ_by_one_at_the_most(partitions: int, size: int) -> None:
    shares = [assignment_size(partitions, Fleet(size, rank)) for rank in range(size)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@given(PARTITIONS, SIZES)
def test_without_ranks_everybody_may_take_the_larger_share(partitions: int, size: int) -> None:
    assert assignment_size(partitions, Fleet(size)) == math.ceil(partitions / size)


@pytest.mark.parametrize(
    ("partitions", "fleet", "share"),
    [
        (16, Fleet(1), 16),
        (16, Fleet(1, 0), 16),
        (16, Fleet(3), 6),
        (16, Fleet(3, 0), 6),
        (16, Fleet(3, 1), 5),
        (4, Fleet(5), 1),
        (4, Fleet(5, 3), 1),
        (4, Fleet(5, 4), 0),
    ],
)
def test_examples(partitions: int, fleet: Fleet, share: int) -> None:
    assert assignment_size(partitions, fleet) == share
