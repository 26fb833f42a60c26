"""The emulator's checker, run over what all agents put."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefactor_worker.demo.children import Child, Children
from prefactor_worker.demo.errors import DemoError

_SECONDS: Final = 60.0
_FOUND: Final = frozenset({0, 1})
"""Exit statuses with which it has compared; the others say that there was nothing to compare."""


@dataclass(frozen=True, slots=True)
class Count:
    """What the checker found.

    Attributes:
        puts: Operations that the agents put.
        lost: Those that took no effect.
        doubled: Effects that were one too many.
        out_of_order: Effects out of the order of their instance.
        unexpected: Effects that nobody had put.
    """

    puts: int
    lost: int
    doubled: int
    out_of_order: int
    unexpected: int

    @property
    def clean(self) -> bool:
        """Whether everything took effect once, in order."""
        return not (self.lost or self.doubled or self.out_of_order or self.unexpected)


async def check_effects(children: Children, folder: Path, database: Path, put_files: Sequence[Path]) -> Count:
    """Hold the emulator's log of effects against what the agents put.

    Args:
        children: Ends the checker.
        folder: For its input.
        database: The emulator's.
        put_files: What each agent's process has written down; an instance is in one of them only.

    Raises:
        DemoError: There was nothing to compare.
    """
    puts = folder / "all.puts"
    puts.write_bytes(b"".join(file.read_bytes() for file in put_files))
    arguments = ("-m", "prefactor_emulator", "verify", "--db", str(database), "--puts", str(puts), "--json")
    checker = await children.start("checker", arguments)
    output = await checker.output()
    if await checker.ended(_SECONDS) not in _FOUND:
        raise DemoError(f"the checker did not compare: {checker.last_words}")
    return _count(output, checker)


def _count(output: str, checker: Child) -> Count:
    try:
        found = json.loads(output)
        return Count(
            puts=found["puts"],
            lost=found["lost"],
            doubled=found["doubled"],
            out_of_order=found["out_of_order"],
            unexpected=found["unexpected"],
        )
    except (ValueError, KeyError) as error:
        raise DemoError(f"the checker did not say what it found: {checker.last_words}") from error
