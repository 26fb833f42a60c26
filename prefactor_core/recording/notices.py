"""What an author of agents is told of spans, once for each place."""

import logging
from difflib import get_close_matches
from typing import Final

from prefactor_core.exclusive import afterwards

logger = logging.getLogger("prefactor_core.recording")

_PLACES_KEPT: Final = 1_000
"""Places (schema, field, problem) that have been warned about; then warnings stop."""


class Notices:
    """Logs what is wrong with spans, once for each schema."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    def once(self, schema_name: str, problem: str) -> None:
        """Say what was done wrong with a span."""
        self.say(problem, "prefactor: a %s span: %s (logged once)", schema_name, problem)

    def unknown_schema(self, schema_name: str, known: frozenset[str]) -> None:
        """Say that an instance's schema version lacks a name."""
        if self._is_news(schema_name, "unknown"):
            nearest = get_close_matches(schema_name, known, n=1)
            hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
            message = "prefactor: no schema named %r is registered%s: its spans are recorded, and flagged"
            afterwards(logger.warning, message, schema_name, hint)

    def say(self, problem: str, message: str, schema_name: str, *details: object) -> None:
        """Log a message about a schema and more details; ``problem`` tells it from others of this schema."""
        if self._is_news(schema_name, problem):
            afterwards(logger.warning, message, schema_name, *details)

    def _is_news(self, schema_name: str, problem: str) -> bool:
        place = (schema_name, problem)
        if place in self._warned or len(self._warned) >= _PLACES_KEPT:
            return False
        self._warned.add(place)
        return True
