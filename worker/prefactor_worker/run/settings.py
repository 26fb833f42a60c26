"""What `prefactor-worker run` was told, checked."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class LogFormat(StrEnum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class TokenSource(Protocol):
    """Where the token comes from."""

    def current(self) -> str:
        """Return the token of the moment."""
        ...

    def reread(self) -> None:
        """Look for a new one now, although nothing may hint at one."""
        ...


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Everything that one worker needs to know.

    Attributes:
        transport: URL of the broker; it may hold a password.
        api_url: Base URL of the API.
        token: The API's token.
        concurrency: Requests in flight at most.
        batch: Operations in one request at most.
        max_retries: Attempts at an operation after the first, on its own account.
        retry_delay_base: Bound of the first backoff, in seconds.
        max_retry_delay: Bound of one backoff, in seconds.
        request_timeout: Seconds without a byte from the API until a request has failed.
        drain: Whether to end once everything is settled or dead-lettered.
        grace: Seconds that a stop may take.
        metrics_host: Where metrics and health are served.
        metrics_port: 0 for nowhere.
    """

    transport: str
    api_url: str
    token: TokenSource
    concurrency: int = 4
    batch: int = 250
    max_retries: int = 3
    retry_delay_base: float = 1.0
    max_retry_delay: float = 60.0
    request_timeout: float = 30.0
    drain: bool = False
    grace: float = 30.0
    metrics_host: str = "0.0.0.0"  # noqa: S104 -- a platform's scraper comes from elsewhere
    metrics_port: int = 9465
