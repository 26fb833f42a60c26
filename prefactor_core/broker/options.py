"""Options in a broker's URL, checked by name: ``redis://host/0?prefix=agents&partitions=32``."""

from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefactor_core.exceptions import TransportError

DEFAULT_PREFIX: Final = "prefactor"
DEFAULT_PARTITIONS: Final = 16
MAX_PARTITIONS: Final = 1_024


class BrokerOptions(BaseModel):
    """What every broker's URL may say; a transport's own options subclass it.

    Attributes:
        prefix: Begins the name of everything on the broker. Fleets with different prefixes share a broker
            without meeting.
        partitions: Partitions to make where none are recorded yet; a recorded number is never changed. It
            caps the fleet.
        timeout: Seconds that the broker has for one answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = DEFAULT_PREFIX
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)] = DEFAULT_PARTITIONS
    timeout: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 10.0


Options = TypeVar("Options", bound=BrokerOptions)


def split_options(url: str, model: type[Options]) -> tuple[str, Options]:
    """Return the URL without its options, and the options.

    Args:
        url: The transport URL.
        model: The options that this transport takes.

    Raises:
        TransportError: An option is unknown, given twice, or has a wrong value. The message names it and
            those that there are, and no value: a URL may hold a password.
    """
    parts = urlsplit(url)
    known = ", ".join(sorted(model.model_fields))
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise TransportError(f"transport_url: its options are not name=value; known are {known}") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise TransportError("transport_url: an option is given twice")
    try:
        options = model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        problem = "is unknown" if first["type"] == "extra_forbidden" else first["msg"]
        raise TransportError(f"transport_url: option {name}: {problem}; known are {known}") from None
    # Cut, not put together anew: that would make a host of the first folder where there is none.
    return url.partition("#")[0].partition("?")[0], options


class _SharedOptions(BrokerOptions, extra="ignore"):
    """The options that all brokers take, beside a broker's own."""


def asked_partitions(url: str) -> int | None:
    """Return the number of partitions that a transport URL asks for, ``None`` if it does not say.

    Raises:
        TransportError: As ``split_options``.
    """
    options = split_options(url, _SharedOptions)[1]
    return options.partitions if "partitions" in options.model_fields_set else None
