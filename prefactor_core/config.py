"""Configuration of the client, checked when it is made."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from prefactor_core.texts import plain_url

DEFAULT_API_URL: Final = "https://app.prefactorai.com"


class HttpClientConfig(BaseModel):
    """How to reach the API.

    Attributes:
        api_url: Base URL; one with ``/api/v1`` is refused, since that is added.
        api_token: The bearer token; appears in no ``repr``.
        request_timeout: Seconds without a byte from the API after which a request fails. It also fails once
            it has taken ``connect_timeout`` and ``request_timeout`` together.
        connect_timeout: Seconds to connect.
        max_retries: Taken for compatibility; ``QueueConfig.max_retries`` counts.
        initial_retry_delay: Taken for compatibility; ``QueueConfig.retry_delay_base`` counts.
        max_retry_delay: Bound of one backoff, in seconds, in the one retry policy.
        retry_multiplier: What the backoff grows by, in the one retry policy.
        retry_on_status_codes: Statuses to retry although they would be final (400, 401, 403, 404, 409, 413
            and 422, with the API's error code). All other failures are retried anyway.
        default_idempotency_key: Taken for compatibility; every operation has a key of its own.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # a token must not stand in a traceback
    )

    api_url: str = DEFAULT_API_URL
    api_token: str = Field(repr=False, min_length=1)
    request_timeout: float = Field(default=30.0, gt=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    max_retries: int = Field(default=3, ge=0)
    initial_retry_delay: float = Field(default=1.0, gt=0)
    max_retry_delay: float = Field(default=60.0, gt=0)
    retry_multiplier: float = Field(default=2.0, ge=1)
    retry_on_status_codes: tuple[int, ...] = (429, 500, 502, 503, 504)
    default_idempotency_key: str | None = None

    @field_validator("api_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        value = value.strip()
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected http:// or https:// and a host")  # it may hold a password
        _ = parts.port  # raises if it is not a port number
        place = f"{parts.path}/".lower().find("/api/v1/")
        if place >= 0:
            base = parts.path[:place]
            url = plain_url(urlunsplit((parts.scheme, parts.netloc, base, "", "")))
            raise ValueError(f"prefactor adds /api/v1 by itself: leave it out, and write {url}")
        return value.rstrip("/")

    @field_validator("api_token")
    @classmethod
    def _check_token(cls, value: str) -> str:
        # It becomes a header; the value itself stays out of the message.
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ValueError("expected printable ASCII without surrounding blanks")
        return value


class QueueConfig(BaseModel):
    """How queued operations are carried out.

    Attributes:
        num_workers: Requests in flight at most, 1 to 20.
        max_retries: Attempts at a failed operation after the first.
        retry_delay_base: Bound of the first backoff, in seconds; later ones grow from it.
    """

    model_config = ConfigDict(extra="forbid")

    num_workers: Annotated[int, Field(ge=1, le=20)] = 3
    max_retries: Annotated[int, Field(ge=0)] = 3
    retry_delay_base: Annotated[float, Field(gt=0)] = 1.0


def _http_config_of(value: Any) -> Any:
    """Accept any object with the attributes of ``HttpClientConfig``.

    Published integrations pass ``prefactor_http``'s class of that name, which pydantic alone would refuse.
    """
    if value is None or isinstance(value, HttpClientConfig | dict):
        return value
    names = HttpClientConfig.model_fields
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    if "api_token" not in found:
        raise ValueError(
            f"expected an HttpClientConfig or an object with its attributes, got {type(value).__name__}"
        )
    return HttpClientConfig(**found)


def _schema_source_of(value: Any) -> Any:
    if value is not None and not callable(getattr(value, "to_agent_schema_version", None)):
        raise ValueError(
            f"expected a SchemaRegistry or an object with to_agent_schema_version, got {type(value).__name__}"
        )
    return value


class PrefactorCoreConfig(BaseModel):
    """Everything that a client needs to know.

    Attributes:
        http_config: How to reach the API. Needed by transports that send from this process (``memory://``).
        queue_config: How queued operations are carried out.
        schema_registry: Schemas for instances that are created without a schema version: a
            ``SchemaRegistry``, or any object with its ``to_agent_schema_version``. May be assigned later;
            read when an instance is created.
        transport_url: Where operations are queued; the scheme names the transport. It may hold a password,
            and so appears in no ``repr``.
        buffer_operations: Operations that this process holds unsettled at most. What does not fit is
            dropped with its dependents, and counted.
        buffer_bytes: Bytes that those take at most.
        buffer_policy: What a full buffer does: ``drop``, as said, or ``block``, which has the agent wait for
            room instead; then an agent does wait for the network.
        close_timeout: Seconds that ``close()`` takes at most, where it is not told otherwise.
        termination_poll_interval: Seconds in which each running instance's status is asked for once, in case
            the service wants its agent to stop; 0 asks for none. Replies to spans say so much sooner.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, validate_assignment=True, extra="forbid", hide_input_in_errors=True
    )

    http_config: Annotated[HttpClientConfig | None, BeforeValidator(_http_config_of)] = None
    queue_config: QueueConfig = Field(default_factory=QueueConfig)
    schema_registry: Annotated[Any, BeforeValidator(_schema_source_of)] = None
    transport_url: str = Field(default="memory://", repr=False)
    buffer_operations: int = Field(default=100_000, ge=1)
    buffer_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    buffer_policy: Literal["drop", "block"] = "drop"
    close_timeout: float = Field(default=30.0, ge=0)
    termination_poll_interval: float = Field(default=30.0, ge=0)

    @classmethod
    def from_env(cls, env_file: str | Path | None = ".env") -> Self:
        """Make a configuration from ``PREFACTOR_*`` variables.

        ``PREFACTOR_API_URL``, ``PREFACTOR_API_TOKEN``, ``PREFACTOR_TRANSPORT_URL``, ``PREFACTOR_NUM_WORKERS``
        and so on: the names of the fields here, in ``HttpClientConfig`` (URL, token, timeouts,
        ``max_retry_delay``) and in ``QueueConfig``, in capitals. Without a token there is no ``http_config``.
        A name that sets nothing, here or in a worker, is logged, with the nearest that does.

        Args:
            env_file: A file of ``NAME=value`` lines that the environment goes before; one that does not
                exist is no error. ``None`` reads none.

        Raises:
            InvalidInputError: A value is wrong; the message names the variable.
        """
        # Imported here since it brings pydantic-settings: importing prefactor_core costs nobody that.
        from prefactor_core.environment import read_environment, variable_error  # noqa: PLC0415

        try:
            values = read_environment(_TYPES, env_file)
            http = HttpClientConfig(**_own(values, HttpClientConfig)) if "api_token" in values else None
            queue = QueueConfig(**_own(values, QueueConfig))
            return cls(http_config=http, queue_config=queue, **_own(values, PrefactorCoreConfig))
        except ValidationError as error:
            raise variable_error(error) from None


ENVIRONMENT: Final[dict[type[BaseModel], tuple[str, ...]]] = {
    HttpClientConfig: ("api_url", "api_token", "request_timeout", "connect_timeout", "max_retry_delay"),
    QueueConfig: ("num_workers", "max_retries", "retry_delay_base"),
    PrefactorCoreConfig: (
        "transport_url",
        "buffer_operations",
        "buffer_bytes",
        "buffer_policy",
        "close_timeout",
        "termination_poll_interval",
    ),
}
"""The fields of each model that ``from_env`` reads."""


_TYPES: Final = tuple(
    (name, model.model_fields[name].annotation) for model, names in ENVIRONMENT.items() for name in names
)


def _own(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {name: values[name] for name in ENVIRONMENT[model] if name in values}
