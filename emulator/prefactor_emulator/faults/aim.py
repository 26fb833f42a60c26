"""Whom a fault hits, and how often: the options that every fault has, and the chance behind them."""

from dataclasses import dataclass
from random import Random
from typing import Self

from prefactor_core.identifiers import is_pfid
from prefactor_emulator.faults.options import FaultSpecError, Options
from prefactor_emulator.faults.subjects import Subject
from prefactor_emulator.model import OperationType

AIM_HELP = (
    "Every fault also takes rate=0..1 (a share; default 1), count=N (no more hits than that), seed=N,"
    " and, to spare all other operations, type=_TYPE, schema=SPAN_SCHEMA, instance=ID."
)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a fault hits.

    Attributes:
        rate: The share of what could be hit.
        count: How many hits there are before it stops. None: it never stops.
        type: The only type of operation to hit, if any.
        schema: The only span schema to hit, if any.
        instance: The only instance to hit, if any.
        seed: The seed of this fault alone, in place of the common one.
    """

    rate: float
    count: int | None
    type: str
    schema: str
    instance: str
    seed: int | None

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """Take the options that every fault has."""
        aim = cls(
            rate=options.number("rate", 1.0, most=1.0),
            count=options.whole_or_none("count", 1, 10**9),
            type=options.word("type", "", tuple(OperationType)),
            schema=options.word("schema", ""),
            instance=options.word("instance", ""),
            seed=options.whole_or_none("seed", 0, 2**63),
        )
        if aim.instance and not is_pfid(aim.instance):
            raise FaultSpecError(f"instance must be a PFID, 32 characters of base32, not {aim.instance!r}")
        return aim

    @property
    def narrowed(self) -> bool:
        """Whether it depends on what an operation is about."""
        return bool(self.type or self.schema or self.instance)

    def covers(self, subject: Subject) -> bool:
        """Tell whether an operation about this is one to hit."""
        return (
            self.type in {"", subject.type}
            and self.schema in {"", subject.schema_name}
            and self.instance in {"", subject.instance_id}
        )


class Gate:
    """Lets a fault through as often as its aim says.

    Args:
        aim: What the fault hits.
        seed: Where its chance begins.
    """

    def __init__(self, aim: Aim, seed: str) -> None:
        self._aim = aim
        self._seed = seed
        self._names: set[str] = set()
        self.dice = Random(seed)  # noqa: S311 - chance for tests, not for secrets
        self.hits = 0

    def opens(self) -> bool:
        """Roll the dice for one request."""
        if self._spent() or self.dice.random() >= self._aim.rate:
            return False
        self.hits += 1
        return True

    def opens_for(self, name: str) -> bool:
        """Choose by name rather than by chance, so that every repeat meets the same fate.

        A name that was hit once is hit for good, and is counted once.
        """
        if name in self._names:
            return True
        if self._spent() or Random(f"{self._seed}/{name}").random() >= self._aim.rate:  # noqa: S311 - as above
            return False
        self._names.add(name)
        self.hits += 1
        return True

    def _spent(self) -> bool:
        return self._aim.count is not None and self.hits >= self._aim.count
