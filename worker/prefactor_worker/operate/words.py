"""Numbers, times and foreign text as people read them."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def duration(seconds: float) -> str:
    """Return a time in its largest unit: ``4 s``, ``2.5 h``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def moment(at: datetime) -> str:
    """Return a time to the second, in UTC; as it is where that cannot be told."""
    if at.tzinfo is not None:
        with suppress(OverflowError):  # at the ends of the calendar
            at = at.astimezone(UTC)
    zone = at.tzname()
    return at.replace(tzinfo=None).isoformat(" ", "seconds") + (f" {zone}" if zone else "")


def count(number: int, one: str) -> str:
    """Return a number of things: ``1 worker``, ``2 workers``."""
    return f"{number:,} {one if number == 1 else one + 's'}"


def safe_json(value: object) -> str:
    """Return JSON for people, with what a terminal would obey escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )
