"""Idempotency keys."""

import uuid
from typing import Final

MAX_KEY_LENGTH: Final = 64
"""The longest key that the API takes, in characters."""


def generate_idempotency_key() -> str:
    """Return a new random key: a UUID4, 36 characters."""
    return str(uuid.uuid4())


def validate_idempotency_key(key: str) -> str:
    """Return ``key`` if it has 1 to 64 printable characters.

    The API itself takes 8 to 64; keys that the client makes are always of that length.

    Raises:
        ValueError: The key is empty, too long, not printable, or not a string.
    """
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 -- the published contract is ValueError
            f"idempotency_key: expected a string, got {type(key).__name__}"
        )
    if not key:
        raise ValueError("idempotency_key: must not be empty")
    if len(key) > MAX_KEY_LENGTH:
        raise ValueError(f"idempotency_key: must be at most {MAX_KEY_LENGTH} characters, got {len(key)}")
    if not key.isprintable():
        raise ValueError("idempotency_key: expected printable characters")
    return key
