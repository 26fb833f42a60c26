"""The checker: what agents put against what took place. Pure: it compares, and reads nothing."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from prefactor_emulator.model import OperationType

PUT_TYPES: Final[Mapping[str, OperationType]] = MappingProxyType(
    {
        "register_agent_instance": OperationType.REGISTER_INSTANCE,
        "start_agent_instance": OperationType.START_INSTANCE,
        "finish_agent_instance": OperationType.FINISH_INSTANCE,
        "record_quality": OperationType.RECORD_QUALITY,
        "create_span": OperationType.CREATE_SPAN,
        "finish_span": OperationType.FINISH_SPAN,
    }
)
"""The operations by the names that agents have for them."""


_BEGIN: Final = (OperationType.REGISTER_INSTANCE, OperationType.START_INSTANCE, OperationType.CREATE_SPAN)


@dataclass(frozen=True, slots=True)
class Put:
    """One operation as its agent put it."""

    instance_id: str
    type: OperationType
    key: str


@dataclass(frozen=True, slots=True)
class LoggedEffect:
    """One line of the log of effects."""

    account: str
    instance_id: str
    type: OperationType
    span_id: str | None
    key: str

    @property
    def deed(self) -> tuple[str, OperationType, str] | None:
        """What can be done only once, whatever the key. A quality may be recorded any number of times."""
        if self.type is OperationType.RECORD_QUALITY:
            return None
        return (self.account, self.type, self.span_id or self.instance_id)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with the effects of one instance, by keys.

    Attributes:
        instance_id: The instance.
        lost: Put, but without effect.
        refused: Put without effect, too, but rightly so: the service has terminated the instance.
        doubled: Took effect again: under the same key, or the same deed under another key.
        out_of_order: The fewest effects that would have to move for all to be in the order of the puts.
        unexpected: Took effect, but was not put for this instance.
    """

    instance_id: str
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    out_of_order: tuple[str, ...]
    unexpected: tuple[str, ...]
    refused: int = 0

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.out_of_order or self.unexpected)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome over all instances.

    Attributes:
        puts: How many different operations were put.
        effects: How many effects were logged.
        instances: How many instances were looked at.
        findings: The instances with anything wrong.
        refused: How many operations were put without effect for an instance that the service has terminated.
    """

    puts: int
    effects: int
    instances: int
    findings: tuple[Findings, ...]
    refused: int = 0

    @property
    def lost(self) -> int:
        """How many operations took no effect."""
        return sum(len(found.lost) for found in self.findings)

    @property
    def doubled(self) -> int:
        """How many effects were one too many."""
        return sum(len(found.doubled) for found in self.findings)

    @property
    def out_of_order(self) -> int:
        """How many effects took place out of the order of their instance."""
        return sum(len(found.out_of_order) for found in self.findings)

    @property
    def unexpected(self) -> int:
        """How many effects nobody had put."""
        return sum(len(found.unexpected) for found in self.findings)

    @property
    def clean(self) -> bool:
        """Whether every put took effect once, in order, or was refused rightly, and nothing else did."""
        return not self.findings


def compare(
    puts: Iterable[Put], effects: Iterable[LoggedEffect], terminated: Container[str] = frozenset()
) -> Comparison:
    """Hold the log of effects against what was put.

    Args:
        puts: In the order of the puts of each instance. What was put again counts once, where it was first.
        effects: In the order in which they took place.
        terminated: The instances that the service has terminated.
    """
    expected: dict[str, dict[tuple[str, OperationType], int]] = {}
    for put in puts:
        places = expected.setdefault(put.instance_id, {})
        places.setdefault((put.key, put.type), len(places))
    logged: dict[str, _Log] = {instance_id: _Log() for instance_id in expected}
    keys: set[tuple[str, str]] = set()
    deeds: set[tuple[str, OperationType, str]] = set()
    count = 0
    for effect in effects:
        count += 1
        log = logged.setdefault(effect.instance_id, _Log())
        place = expected.get(effect.instance_id, {}).get((effect.key, effect.type))
        if place is not None:
            log.done.add(place)  # whatever else is wrong with this effect, its operation is not lost
        if (effect.account, effect.key) in keys or effect.deed in deeds:
            log.doubled.append(effect.key)
        elif place is None:
            log.unexpected.append(effect.key)
        else:
            log.sequence.append((place, effect.key))
        keys.add((effect.account, effect.key))
        if effect.deed is not None:
            deeds.add(effect.deed)
    findings = [
        _judge(instance_id, expected.get(instance_id, {}), log, terminated=instance_id in terminated)
        for instance_id, log in logged.items()
    ]
    return Comparison(
        puts=sum(map(len, expected.values())),
        effects=count,
        instances=len(logged),
        findings=tuple(found for found in findings if found),
        refused=sum(found.refused for found in findings),
    )


class _Log:
    """What was seen of one instance."""

    def __init__(self) -> None:
        self.sequence: list[tuple[int, str]] = []
        self.done: set[int] = set()
        self.doubled: list[str] = []
        self.unexpected: list[str] = []


def _judge(
    instance_id: str, places: Mapping[tuple[str, OperationType], int], log: _Log, *, terminated: bool
) -> Findings:
    stay = _longest_rising([place for place, _ in log.sequence])
    missing = {put: place for put, place in places.items() if place not in log.done}
    refused = 0
    if terminated:
        # What begins something is refused from the termination on: nothing like it may come later. Qualities
        # are always taken.
        last = {put[1]: place for put, place in places.items() if place in log.done}
        lost = {
            put: place
            for put, place in missing.items()
            if put[1] is OperationType.RECORD_QUALITY or (put[1] in _BEGIN and place < last.get(put[1], -1))
        }
        refused, missing = len(missing) - len(lost), lost
    return Findings(
        instance_id=instance_id,
        lost=tuple(key for key, _ in missing),
        doubled=tuple(log.doubled),
        out_of_order=tuple(key for index, (_, key) in enumerate(log.sequence) if index not in stay),
        unexpected=tuple(log.unexpected),
        refused=refused,
    )


def _longest_rising(places: Sequence[int]) -> set[int]:
    """Find the indexes of a longest rising subsequence: what is outside of it is what was moved."""
    tails: list[int] = []  # the smallest place that ends a rising run of each length
    tail_indexes: list[int] = []
    before: list[int] = []
    for index, place in enumerate(places):
        length = bisect_left(tails, place)
        before.append(tail_indexes[length - 1] if length else -1)
        if length == len(tails):
            tails.append(place)
            tail_indexes.append(index)
        else:
            tails[length], tail_indexes[length] = place, index
    found: set[int] = set()
    index = tail_indexes[-1] if tail_indexes else -1
    while index >= 0:
        found.add(index)
        index = before[index]
    return found
