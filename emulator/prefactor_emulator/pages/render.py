"""What the templates use: how times, lengths of time and JSON are written. They escape all of it."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic_core import to_json

from prefactor_emulator.model import SENSITIVE
from prefactor_emulator.pages.timeline import seconds_of

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


class Cover(NamedTuple):
    """A value, as JSON, that is shown when it is asked for, and what it says it is."""

    kind: str
    value: str


def render(template: str, **values: object) -> str:
    """Make a page. It needs nothing but what it is given, so any thread can do it."""
    return _TEMPLATES.get_template(template).render(values)


def duration(seconds: float) -> str:
    """Write a length of time in two units at most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    unit, name, smaller, smaller_name = next(units for units in _UNITS if round(seconds) >= units[0])
    whole, rest = divmod(round(seconds), unit)
    return f"{whole} {name} {rest // smaller} {smaller_name}"


def took(instance: Mapping[str, str | None]) -> str:
    """Write how long an instance took; nothing if it has not started, or is not over."""
    start, end = (seconds_of(instance[name]) for name in ("started_at", "finished_at"))
    return "" if start is None or end is None else duration(max(0.0, end - start))


def pieces(value: object, *, sensitive: object = False) -> Iterator[str | Cover]:
    """Write JSON, indented, in pieces.

    Args:
        value: What to write.
        sensitive: Whether values that are marked as sensitive are covered.
    """
    covers: list[Cover] = []
    nonce = secrets.token_hex(8)  # what a payload cannot know, it cannot pretend to be

    def covered(part: object) -> object:
        if isinstance(part, list):
            return [covered(item) for item in part]
        if not isinstance(part, dict):
            return part
        if SENSITIVE not in part or "value" not in part:
            return {name: covered(item) for name, item in part.items()}
        labels = part["labels"] if isinstance(part.get("labels"), list) else []
        covers.append(Cover(", ".join(map(str, (part[SENSITIVE], *labels))), _json(part["value"])))
        return nonce

    first, *others = _json(covered(value) if sensitive else value).split(f'"{nonce}"')
    yield first
    for cover, text in zip(covers, others, strict=True):
        yield cover
        yield text


def _json(value: object) -> str:
    return to_json(value, indent=2).decode()


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"duration": duration, "took": took, "pieces": pieces}
