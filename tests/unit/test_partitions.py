"""Which partition an instance belongs to: the same for ever."""

from collections import Counter

import pytest

from prefactor_core.broker.partitions import partition_of

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


@pytest.mark.parametrize("name", GOLDEN)
def test_the_hash_never_changes(name: str) -> None:
    assert tuple(partition_of(name, partitions) for partitions in (1, 2, 3, 16, 1024)) == GOLDEN[name]


@pytest.mark.parametrize("partitions", [2, 3, 16, 64])
def test_instances_are_spread_evenly(partitions: int) -> None:
    each = 1_000
    counts = Counter(partition_of(f"instance-{number}", partitions) for number in range(each * partitions))
    assert sorted(counts) == list(range(partitions))
    assert max(abs(count - each) for count in counts.values()) < 0.15 * each
