"""What the pages for people are made of. Everything that came from outside is escaped here."""

from html import escape

from pydantic_core import to_json

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def page(title: str, content: str) -> str:
    """Lay out a page. Its content is brought up to date by the script, without which it works as well."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{text(title)}</title>"
        "<link rel='icon' href='/assets/icon.svg'><link rel='stylesheet' href='/assets/page.css'>"
        "<script src='/assets/live.js' defer></script></head>"
        f"<body><header><a href='/'>prefactor-emulator</a><span id='live' hidden></span></header>"
        f"<main>{content}</main></body></html>"
    )


def text(value: object) -> str:
    """Escape what is shown as text or stands in a quoted attribute."""
    return escape(str(value))


def badge(status: str, label: str | None = None) -> str:
    """Show a state."""
    return f"<span class='badge {text(status)}'>{text(label or status)}</span>"


def moment(timestamp: object) -> str:
    """Show a point in time as it was told, down to the second."""
    if timestamp is None:
        return ""
    whole = str(timestamp)
    return f"<time datetime='{text(whole)}' title='{text(whole)}'>{text(whole[:19].replace('T', ' '))}</time>"


def duration(seconds: float) -> str:
    """Show a length of time in two units at most."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    for unit, name, smaller, smaller_name in _UNITS:
        if round(seconds) >= unit:
            whole, rest = divmod(round(seconds), unit)
            return f"{whole} {name} {rest // smaller} {smaller_name}"
    return f"{seconds:.3g} s"


def pretty(value: object) -> str:
    """Show JSON, indented."""
    return f"<pre>{text(to_json(value, indent=2).decode())}</pre>"


def folded(title: str, content: str, key: str) -> str:
    """Show a title that opens what is below it."""
    return f"<details class='fold' id='{text(key)}'><summary>{text(title)}</summary>{content}</details>"
