"""``prefactor-worker`` with a fault of its own: one operation ends the process each time it is handled.

``python -m tests.support.poisoned_worker FILE run [options]``: the real command, but for that. The file holds
the operation's key, for as long as it is poison.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prefactor_core import Operation
from prefactor_core.execution.outcome import Outcome
from prefactor_core.queue.base import Delivery
from prefactor_worker import cli
from prefactor_worker.run import worker
from prefactor_worker.run.meter import MeteredDelivery

DEATH = 66


def main() -> None:
    """Run the command with the fault in it."""
    poison = Path(sys.argv.pop(1))

    class Poisoned(MeteredDelivery):
        """Ends the process as a bug in a library written in C would: without a word."""

        async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> list[Outcome]:
            key = poison.read_text()  # noqa: ASYNC240 -- a few bytes
            if any(delivery.item.idempotency_key == key for delivery in deliveries):
                os._exit(DEATH)
            return await super().handle(deliveries)

    vars(worker)["MeteredDelivery"] = Poisoned
    cli.main()


if __name__ == "__main__":
    main()
