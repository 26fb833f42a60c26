"""What everything on the broker is called."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """The names under one prefix.

    Attributes:
        prefix: What all of them begin with.
    """

    prefix: str

    @property
    def exchange(self) -> str:
        """The exchange through which operations reach their partition."""
        return f"{self.prefix}.operations"

    @property
    def record(self) -> str:
        """The queue whose bound is the number of partitions; nothing is ever put into it."""
        return f"{self.prefix}.partitions"

    @property
    def workers(self) -> str:
        """The queue whose consumers are the fleet."""
        return f"{self.prefix}.workers"

    @property
    def dead(self) -> str:
        """The queue of dead letters."""
        return f"{self.prefix}.dead"

    def partition(self, number: int) -> str:
        """Return the queue of a partition."""
        return f"{self.prefix}.{number}"

    def owner(self, number: int) -> str:
        """Return the queue that only a partition's owner has: it dies with the connection."""
        return f"{self.prefix}.{number}.owner"

    def trials(self, number: int) -> str:
        """Return the queue that counts how often suspect messages of a partition were handled alone."""
        return f"{self.prefix}.{number}.trials"

    def handover(self, number: int) -> str:
        """Return the queue with the note that the last owner of a partition left for the next one."""
        return f"{self.prefix}.{number}.handover"
