"""Idempotency keys."""

import uuid

import pytest

from prefactor_core import generate_idempotency_key, validate_idempotency_key


def test_generated_keys_are_random_uuids_that_pass_validation() -> None:
    keys = [generate_idempotency_key() for _ in range(100)]
    assert len(set(keys)) == 100
    for key in keys:
        assert uuid.UUID(key).version == 4
        assert len(key) == 36
        assert validate_idempotency_key(key) is key


@pytest.mark.parametrize("key", ["a", "x" * 64, "ü" * 64, " "])
def test_1_to_64_characters_pass(key: str) -> None:
    assert validate_idempotency_key(key) is key


@pytest.mark.parametrize("key", ["", "x" * 65, None, 12345678, b"bytes-key", "a\nb", "\x1b[2J", "\ud800"])
def test_everything_else_is_a_value_error_that_names_the_argument(key: object) -> None:
    with pytest.raises(ValueError, match=r"^idempotency_key: "):
        validate_idempotency_key(key)  # type: ignore[arg-type]
