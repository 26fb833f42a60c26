"""Small helpers of integrations and commands: idempotency keys, and what to say when something is missing."""

import importlib
import logging
import sys
import uuid
from typing import Final

from prefactor_core.texts import LONGEST_KEY, is_key

logger = logging.getLogger(__name__)

_OURS: Final = "prefactor_"


def generate_idempotency_key() -> str:
    """Return a new random key: a UUID4, 36 characters."""
    return str(uuid.uuid4())


def validate_idempotency_key(key: str) -> str:
    """Return ``key`` if it has 1 to 64 printable characters, else raise ``ValueError``.

    The API itself takes 8 to 64; keys that the client makes are always of that length.
    """
    if is_key(key):
        return key
    raise ValueError(f"idempotency_key: {_problem_of_key(key)}")


def _problem_of_key(key: object) -> str:
    if not isinstance(key, str):
        return f"expected a string, got {type(key).__name__}"
    if not key:
        return "must not be empty"
    if len(key) > LONGEST_KEY:
        return f"expected at most {LONGEST_KEY} characters, got {len(key)}"
    return "expected printable characters"


def warn_missing_adaptor_config(instance_id: str, adaptor_name: str, create_client_call: str) -> None:
    """Log that an instance is used by an integration that its client was not made for.

    The integration's spans then lack their schemas, and its name is missing from the SDK header. The warning
    shows the call that makes a client for it.
    """
    logger.warning(
        "instance %s was created by a client that is not configured for %s: create the client with %s",
        instance_id,
        adaptor_name,
        create_client_call,
    )


def run_command(module: str, command: str, extra: str) -> None:
    """Import a command's module and run its ``main``.

    Raises:
        SystemExit: With status 2 and one line, if a library that ``extra`` brings is missing.
    """
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(_OURS):
            raise  # a mistake of ours, not a missing library
        print(  # noqa: T201 -- a command speaks to its user
            f"{command} needs {error.name}: pip install 'prefactor-core[{extra}]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    loaded.main()
