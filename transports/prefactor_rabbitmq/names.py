"""What everything on the broker is called."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

_ADDRESS: Final = re.compile(r"[0-9a-f]{32}")


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
    def aside(self) -> str:
        """The queue whose consumers are the workers that stand aside."""
        return f"{self.prefix}.aside"

    @property
    def dead(self) -> str:
        """The queue of dead letters."""
        return f"{self.prefix}.dead"

    @property
    def dead_reader(self) -> str:
        """The queue that only the reader of the dead letters has: it dies with the connection."""
        return f"{self.prefix}.dead.reader"

    def partition(self, number: int) -> str:
        """Return the queue of a partition."""
        return f"{self.prefix}.{number}"

    def owner(self, number: int) -> str:
        """Return the queue that only a partition's owner has: it dies with the connection."""
        return f"{self.prefix}.{number}.owner"

    def attempts(self, number: int) -> str:
        """Return the queue with the log of attempts at a partition's messages that were handled alone."""
        return f"{self.prefix}.{number}.attempts"

    def handover(self, number: int) -> str:
        """Return the queue with the note that the last owner of a partition left for the next one."""
        return f"{self.prefix}.{number}.handover"

    def nothing(self) -> str:
        """Return a name under the prefix that nothing has, nor ever had."""
        return f"{self.prefix}.check.{new_address()}"

    def answers(self, address: str) -> str | None:
        """Return the queue for the answers to an address; ``None`` if it is not of the form of our own."""
        return f"{self.prefix}.answers.{address}" if _ADDRESS.fullmatch(address) else None


def new_address() -> str:
    """Return an address for answers that nobody can guess."""
    return secrets.token_hex(16)
