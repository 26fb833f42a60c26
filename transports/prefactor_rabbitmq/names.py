"""What everything on the broker is called."""

import re
import secrets
from typing import Final

_ADDRESS: Final = re.compile(r"[0-9a-f]{32}")


class Names:
    """The names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.exchange = f"{prefix}.operations"
        """The exchange through which operations reach their partition."""
        self.record = f"{prefix}.partitions"
        """The queue whose bound is the number of partitions; nothing is ever put into it."""
        self.workers = f"{prefix}.workers"
        """The queue whose consumers are the fleet."""
        self.aside = f"{prefix}.aside"
        """The queue whose consumers are the workers that stand aside."""
        self.dead = f"{prefix}.dead"
        """The queue of dead letters."""
        self.dead_reader = f"{prefix}.dead.reader"
        """The queue that only the reader of the dead letters has: it dies with the connection."""

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

    def answers(self, address: str) -> str:
        """Return the queue for the answers to an address."""
        return f"{self.prefix}.answers.{address}"


def new_address() -> str:
    """Return an address for answers that nobody can guess."""
    return secrets.token_hex(16)


def is_address(text: str) -> bool:
    """Whether ``new_address`` can have returned it."""
    return _ADDRESS.fullmatch(text) is not None
