"""Checks of what callers give: names, times and statuses."""

from datetime import UTC, datetime
from typing import Final, get_args

from prefactor_core.exceptions import InvalidInputError
from prefactor_core.models import FinishStatus
from prefactor_core.payloads import NOT_UNICODE
from prefactor_core.texts import is_unicode

_LONGEST_NAME: Final = 1_024
"""Characters in a name at most."""
_END_STATUSES: Final = frozenset(get_args(FinishStatus))


def require_end_status(status: object) -> None:
    """Check the status that a span or an instance is to end with. Raises ``InvalidInputError``."""
    if status not in _END_STATUSES:
        raise InvalidInputError("status", f"expected complete, failed or cancelled, got {status!r}")


def require_name(value: object, field: str) -> None:
    """Check a name of the caller's. Raises ``InvalidInputError``."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise InvalidInputError(field, f"expected 1 to {_LONGEST_NAME:,} characters")
    if not value.isascii() and not is_unicode(value):
        raise InvalidInputError(field, NOT_UNICODE)


def as_time(value: object, field: str) -> datetime | None:
    """Return an optional time of the caller's; one without a zone is UTC. Raises ``InvalidInputError``."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInputError(field, f"expected a datetime, got {type(value).__name__}")
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
