"""Dead letters in groups: by agent, by type, by reason; and a replay's outcome, by type and reason."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from prefactor_core.broker.dead_letters import Replay, StoredDeadLetter
from prefactor_core.execution.outcome import FOLLOWS, INSTANCE_OVER
from prefactor_core.texts import one_line

By: TypeAlias = Literal["reason", "agent", "type"]

_LONGEST: Final = 88
"""Characters of a reason in a group's name."""
_VARIABLE: Final = re.compile(r"(HTTP \d{3}(?: \w+)?)|(?<![\w-])(?:[^\W\d]|-)*+\d[\w-]*(?:[.,]\d+)*")
"""What tells one dead letter from another of its kind: words with a digit; but a status and its code stay."""


def is_dependent(reason: str) -> bool:
    """Whether it was dead-lettered since an operation that it depends on was."""
    return reason.startswith(FOLLOWS)


def is_over(reason: str) -> bool:
    """Whether the instance is over, so that the API will refuse a replay as well."""
    return reason.removeprefix(FOLLOWS).startswith(INSTANCE_OVER)


def pattern_of(reason: str) -> str:
    """Return a reason with ``*`` for ids, keys and numbers, fit for a line; the commands' filter takes it."""
    line = one_line(reason[: 4 * _LONGEST])
    pattern = _VARIABLE.sub(lambda found: found[1] or "*", line)
    return pattern if len(pattern) <= _LONGEST else f"{pattern[: _LONGEST - 1]}*"


@dataclass(slots=True)
class Group:
    """Dead letters that have something in common.

    Attributes:
        name: What they have in common; a filter takes it.
        example: One of them, the first that is no dependent if there is one.
        count: How many they are.
        dependents: How many of them are dependents.
    """

    name: str
    example: StoredDeadLetter
    count: int = 0
    dependents: int = 0

    def add(self, dead_letter: StoredDeadLetter) -> None:
        """Take in one more."""
        self.count += 1
        if is_dependent(dead_letter.reason):
            self.dependents += 1
        elif self.dependents == self.count - 1:
            self.example = dead_letter


_NAMES: Final[Mapping[By, Callable[[StoredDeadLetter], str]]] = {
    # A dependent is in the group of what it follows.
    "reason": lambda one: pattern_of(one.reason.removeprefix(FOLLOWS)),
    "agent": lambda one: one.agent,
    "type": lambda one: one.type,
}


class Groups:
    """Sorts dead letters into groups."""

    def __init__(self, by: By) -> None:
        self._name_of = _NAMES[by]
        self._groups: dict[str, Group] = {}

    def add(self, dead_letter: StoredDeadLetter) -> None:
        """Take in a dead letter."""
        name = self._name_of(dead_letter)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name, dead_letter)
        group.add(dead_letter)

    def largest_first(self) -> list[Group]:
        """Return the groups."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.name))


class Kind(NamedTuple):
    """What a replay's outcome is told by: the type of an operation, and the pattern of its reason."""

    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the replayed operations of one kind."""

    kind: Kind
    delivered: int
    kept: int
    pending: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        counts = {"delivered": self.delivered, "kept": self.kept, "pending": self.pending}
        return {**self.kind._asdict(), **counts}


def outcomes(kinds: Mapping[str, Kind], replay: Replay) -> list[Outcome]:
    """Return what became of the replayed operations by kind, the largest first.

    Args:
        kinds: The kinds of all that were to be replayed, by id.
        replay: What came of it.
    """
    replayed = _count(kinds, replay.replayed_ids)
    delivered = _count(kinds, replay.delivered_ids)
    kept = _count(kinds, (id_ for ids in replay.kept.values() for id_ in ids))
    return [
        Outcome(kind, delivered[kind], kept[kind], replayed[kind] - delivered[kind] - kept[kind])
        for kind in sorted(replayed, key=lambda kind: (-replayed[kind], kind))
    ]


def _count(kinds: Mapping[str, Kind], ids: Iterable[str]) -> Counter[Kind]:
    return Counter(kinds[id_] for id_ in ids)
