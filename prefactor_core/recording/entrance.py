"""The entrance: what every recording call goes through."""

from prefactor_core.operations import Operation
from prefactor_core.recording.gate import Gate
from prefactor_core.recording.handover import Handover, Wait


class Entrance:
    """A gate, and the handover behind it.

    Whatever records holds the entrance, and nothing that delivers does: once it is gone, no call can come any
    more.
    """

    def __init__(self, gate: Gate, handover: Handover) -> None:
        self._gate = gate
        self._handover = handover
        self.records = gate.records
        """The instances that are recorded here."""
        self.check = gate.check
        """As ``Gate.check``: to be called before anything is changed."""

    @property
    def is_inherited(self) -> bool:
        """Whether all of this belongs to the process that this one was forked from."""
        return self._gate.is_inherited

    def give(self, operations: tuple[Operation, ...] | list[Operation]) -> Wait | None:
        """Hand operations over, as ``Handover.give``; the lock of their instance's record is held."""
        self._gate.check_again()
        return self._handover.give(operations)
