"""What `check --strict` counts as a problem, so that a monitor hears of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prefactor_worker.operate.findings import Findings
from prefactor_worker.operate.look import Look, Row
from prefactor_worker.operate.words import count, duration

DEFAULT_MAX_AGE: Final = 300.0
DEFAULT_MAX_BACKLOG: Final = 10_000
"""Where the broker tells no age."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a backlog is a problem.

    Attributes:
        max_age: Seconds that the oldest operation may have waited.
        max_backlog: How many operations may wait; ``None`` for any number, where the broker tells their age.
    """

    max_age: float = DEFAULT_MAX_AGE
    max_backlog: int | None = None


def judge(findings: Findings, look: Look, limits: Limits) -> None:
    """Add what is a problem for a monitor: no worker, or a backlog that is too old or too long.

    Args:
        findings: Where to.
        look: What was seen.
        limits: From where on.
    """
    if not look.owned:
        findings.problem("strict: no worker owns a partition")
    if look.oldest is not None and look.oldest > limits.max_age:
        findings.problem(
            f"strict: the oldest operation has waited for {duration(look.oldest)}; the limit is "
            f"{duration(limits.max_age)}"
        )
    ageless = _ageless(look.rows)
    most = DEFAULT_MAX_BACKLOG if ageless and limits.max_backlog is None else limits.max_backlog
    if most is not None and look.waiting > most:
        findings.problem(f"strict: {count(look.waiting, 'operation')} in the backlog; the limit is {most:,}")
    elif ageless:
        findings.ok(
            "strict: this broker does not tell how old its backlog is, so its length was judged: "
            f"{look.waiting:,} of at most {most:,}; --max-backlog changes the limit"
        )


def _ageless(rows: Sequence[Row]) -> bool:
    """Whether something waits whose age the broker does not tell."""
    return any(row.state.waiting and row.age is None for row in rows)
