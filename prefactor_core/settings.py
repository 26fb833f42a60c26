"""Settings from the environment: ``PREFACTOR_*`` variables, and the same names in a ``.env`` file."""

from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from prefactor_core.exceptions import InvalidInputError

PREFIX: Final = "PREFACTOR_"


class EnvironmentSettings(BaseSettings):
    """Every setting of an agent that the environment can make; what is not set keeps its default.

    The fields are those of ``HttpClientConfig``, ``QueueConfig`` and ``PrefactorCoreConfig``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",  # the worker and the tests have variables of their own
        hide_input_in_errors=True,
    )

    api_url: str | None = None
    api_token: str | None = None
    request_timeout: float | None = None
    connect_timeout: float | None = None
    max_retry_delay: float | None = None
    num_workers: int | None = None
    max_retries: int | None = None
    retry_delay_base: float | None = None
    transport_url: str | None = None
    buffer_operations: int | None = None
    buffer_bytes: int | None = None
    buffer_policy: str | None = None
    close_timeout: float | None = None
    termination_poll_interval: float | None = None


def read_environment(env_file: str | Path | None) -> dict[str, Any]:
    """Return what is set. The environment goes before the file.

    Args:
        env_file: A file of ``NAME=value`` lines; one that does not exist is no error.

    Raises:
        InvalidInputError: A value is of the wrong kind; the message names the variable, not the value.
    """
    try:
        # The file is an argument that the class takes beside its fields.
        settings = EnvironmentSettings(_env_file=env_file)  # type: ignore[call-arg] # known to the library alone
    except ValidationError as error:
        raise variable_error(error) from None
    return settings.model_dump(exclude_none=True)


def variable_error(error: ValidationError) -> InvalidInputError:
    """Return the error that names the variable which the first problem is about."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = str(first["loc"][-1]) if first["loc"] else "settings"
    return InvalidInputError(f"{PREFIX}{field.upper()}", first["msg"])
