"""Idempotency keys."""

import uuid
from typing import Any

import pytest

from prefactor_core import generate_idempotency_key, validate_idempotency_key


def test_generated_keys_are_random_uuids_that_pass_validation() -> None:
    keys = [generate_idempotency_key() for _ in range(100)]
    assert len(set(keys)) == 100
    for key in keys:
        assert uuid.UUID(key).version == 4
        assert len(key) == 36
        assert validate_idempotency_key(key) is key


def test_1_to_64_printable_characters_pass_and_nothing_else() -> None:
    for key in ("a", "x" * 64, "ü" * 64, " "):
        assert validate_idempotency_key(key) is key
    bad: list[Any] = ["", "x" * 65, None, 12345678, b"bytes-key", "a\nb", "\x1b[2J", "\ud800"]
    for key in bad:
        with pytest.raises(ValueError, match=r"^idempotency_key: "):
            validate_idempotency_key(key)
