"""Checks of what callers give: names, times and statuses."""

from datetime import datetime
from typing import Final

from prefactor_core.exceptions import InvalidInputError

_LONGEST_NAME: Final = 1_024
"""Characters in a name at most."""


def require_end_status(status: object) -> None:
    """Check the status that a span or an instance is to end with. Raises ``InvalidInputError``."""
    if status not in {"complete", "failed", "cancelled"}:
        raise InvalidInputError("status", f"expected complete, failed or cancelled, got {status!r}")


def require_name(value: object, field: str) -> None:
    """Check a name of the caller's. Raises ``InvalidInputError``."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise InvalidInputError(field, f"expected 1 to {_LONGEST_NAME:,} characters")


def require_time(value: object, field: str) -> None:
    """Check an optional time of the caller's: a ``datetime`` with a zone. Raises ``InvalidInputError``."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidInputError(field, f"expected a datetime, got {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidInputError(field, "expected a datetime with a time zone (datetime.now(UTC), say)")
