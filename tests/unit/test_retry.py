"""The retry policy."""

import random
from typing import Any

import pytest

from prefactor_core.execution.retry import RetryPolicy


class Highest(random.Random):
    """Jitter that always takes the bound."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 -- the signature is random's
        return b


class Lowest(random.Random):
    """Jitter that always takes nothing."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 -- the signature is random's
        return a


def test_the_bound_grows_up_to_the_cap() -> None:
    rows: list[tuple[dict[str, Any], list[float]]] = [
        ({}, [1, 2, 4, 8, 16, 32, 60, 60]),
        ({"base": 0.5, "multiplier": 3, "cap": 5}, [0.5, 1.5, 4.5, 5]),
        ({"base": 2, "multiplier": 1, "cap": 60}, [2, 2, 2]),
        ({"base": 9, "cap": 5}, [5, 5]),
    ]
    for policy, bounds in rows:
        retry = RetryPolicy(**policy, rng=Highest())
        assert [retry.delay(count + 1) for count in range(len(bounds))] == pytest.approx(bounds), policy


def test_jitter_is_full() -> None:
    retry = RetryPolicy(rng=random.Random(1))  # noqa: S311 -- jitter
    waits = [retry.delay(4) for _ in range(1_000)]
    assert 0 <= min(waits) < 0.1
    assert 7.9 < max(waits) <= 8
    assert 3.7 < sum(waits) / 1_000 < 4.3
    assert RetryPolicy(rng=Lowest()).delay(9) == 0


@pytest.mark.parametrize("floor", [0.5, 30.0, 600.0])
def test_what_the_server_asked_for_is_a_floor_even_above_the_cap(floor: float) -> None:
    for rng in (Lowest(), Highest()):
        assert RetryPolicy(cap=10, rng=rng).delay(20, floor) >= floor
    spread = {RetryPolicy().delay(3, floor) for _ in range(20)}
    assert len(spread) > 1, "those that were told the same time do not come back at the same time"


def test_any_number_of_failures_meets_the_cap() -> None:
    for multiplier in (1.01, 2.0, 1e6):
        policy = RetryPolicy(multiplier=multiplier, cap=7, rng=Highest())
        for failures in (5_000, 10**9, 10**30):
            assert policy.delay(failures) == pytest.approx(7), (multiplier, failures)
