"""Texts that others have written: what an operation may carry, and how the rest is shown.

An operation's key, ids and SDK header reach logs, terminals, paths and the header of a request that many
operations share. What comes from a broker is checked where it is decoded, and what goes there
where it is put.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

LONGEST_ID: Final = 256
"""Characters of an id; the client's own have 32."""

LONGEST_KEY: Final = 64
"""Characters of an idempotency key: the API takes no longer one."""

LONGEST_SDK_HEADER: Final = 1_024
"""Characters of an SDK header: one request carries those of many agents."""

_LONGEST_NAME: Final = 64
_MOST_NAMES: Final = 20


def problem_of_id(value: object) -> str | None:
    """Return why ``value`` is no id of an instance or a span, in words that quote nothing; else ``None``.

    The API's own are PFIDs. Others are let through to be refused there, if they harm nobody on the way.
    """
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_ID:
        return f"expected at most {LONGEST_ID} printable characters"
    if value in {".", ".."}:
        return "means another path"
    return None


def is_key(value: object) -> bool:
    """Whether ``value`` is an idempotency key: 1 to ``LONGEST_KEY`` printable characters."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_KEY and value.isprintable()


def problem_of_sdk_header(value: str) -> str | None:
    """Return why ``value`` cannot be sent in the SDK header, in words that quote nothing; else ``None``."""
    if value.isascii() and value.isprintable() and len(value) <= LONGEST_SDK_HEADER:
        return None
    return f"expected at most {LONGEST_SDK_HEADER:,} printable ASCII characters"


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be encoded: it holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: str, longest: int | None = None) -> str:
    """Return ``text`` with everything escaped that could begin a new line or speak to a terminal.

    What is longer than ``longest`` characters ends with three dots.
    """
    if longest is not None:
        text = text[: longest + 1]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."


def plain_url(url: str) -> str:
    """Return ``url`` as it may be shown: without user, password, options, and what could begin a line."""
    parts = urlsplit(url)
    return one_line(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


def name(text: object, kind: str) -> str:
    """Return a name that somebody gave; or, if it is long or not printable, of what ``kind`` it is."""
    if isinstance(text, str) and 0 < len(text) <= _LONGEST_NAME and text.isprintable():
        return text
    return f"a {kind} that cannot be shown"


def names(texts: Iterable[object], kind: str) -> str:
    """Return the first of several such names, separated by commas."""
    shown = [name(text, kind) for text in texts]
    more = [f"{len(shown) - _MOST_NAMES} more"] if len(shown) > _MOST_NAMES else []
    return ", ".join(shown[:_MOST_NAMES] + more)
