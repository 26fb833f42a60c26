"""What was put, and whether it took effect: lost, doubled, out of order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefactor_core import InMemoryQueue, Operation
from prefactor_emulator.model import OperationType
from prefactor_emulator.verify import compare as verify


class RecordingQueue(InMemoryQueue[Operation]):
    """The queue in memory, with a record of every put that it did not drop."""

    def __init__(self, max_items: int | None = None, max_bytes: int | None = None) -> None:
        super().__init__(max_items, max_bytes)
        self.puts: list[Operation] = []

    def offer(self, item: Operation) -> None:
        dropped = self.dropped.total()
        super().offer(item)
        if self.dropped.total() == dropped:
            self.puts.append(item)


@dataclass(frozen=True)
class Comparison:
    """The three figures that have to be 0."""

    lost: int
    doubled: int
    out_of_order: int


def compare(puts: Iterable[Operation], effects: Iterable[Mapping[str, Any]]) -> Comparison:
    """Hold the effects, by instance and in their order, against what was put, with the emulator's checker."""
    found = verify.compare(
        [
            verify.Put(
                operation.instance_id or "",
                verify.PUT_TYPES[operation.type.value],
                operation.idempotency_key or "",
            )
            for operation in puts
        ],
        [
            verify.LoggedEffect(
                effect["account"],
                effect["instance_id"],
                OperationType(effect["type"]),
                effect["span_id"],
                effect["key"],
            )
            for effect in effects
        ],
    )
    assert found.unexpected == 0, found
    return Comparison(found.lost, found.doubled, found.out_of_order)
