"""Reads ``PREFACTOR_*`` variables, from the environment and from a file.

Imported by ``from_env`` alone: pydantic-settings, with all that it brings, is of no use to an agent that is
configured in code.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from prefactor_core.exceptions import InvalidInputError
from prefactor_core.variables import PREFIX, warn_of_unknown


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",  # others have variables of their own; what nobody has is warned of
        hide_input_in_errors=True,
    )


def read_environment(types: tuple[tuple[str, Any], ...], env_file: str | Path | None) -> dict[str, Any]:
    """Return the values that are set, by name, and log the names of variables that set nothing.

    Args:
        types: The settings that there are: names, without the prefix, and types.
        env_file: A file of ``NAME=value`` lines that the environment goes before; ``None`` reads none.

    Raises:
        ValidationError: A value is not of its type.
    """
    model = _model_of(types)
    in_file = DotEnvSettingsSource(model, env_file=env_file).env_vars
    warn_of_unknown([*os.environ, *in_file], dict(types))
    # The file is an argument that the class takes beside its fields.
    environment = model(_env_file=env_file)  # type: ignore[call-arg] # known to the library alone
    return environment.model_dump(exclude_none=True)


def variable_error(error: ValidationError) -> InvalidInputError:
    """Return the error that names the variable, not the value, which the first problem is about."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = str(first["loc"][-1]) if first["loc"] else "settings"
    return InvalidInputError(f"{PREFIX}{field.upper()}", first["msg"].removeprefix("Value error, "))


@cache
def _model_of(types: tuple[tuple[str, Any], ...]) -> type[_Environment]:
    # What is not set keeps the defaults of the models that it is for.
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in types}
    return create_model("_Environment", __base__=_Environment, **fields)
