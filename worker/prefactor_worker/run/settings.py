"""What `prefactor-worker run` was told, checked."""

from dataclasses import dataclass

from prefactor_worker.token import TokenSource


@dataclass(frozen=True)
class RunSettings:
    """Everything that one worker needs to know; each field but the token is the option of its name."""

    transport: str
    api_url: str
    token: TokenSource
    concurrency: int = 4
    batch: int = 250
    max_retries: int = 3
    request_timeout: float = 30.0
    drain: bool = False
    grace: float = 30.0
    metrics_host: str = "0.0.0.0"  # noqa: S104 -- a platform's scraper comes from elsewhere
    metrics_port: int = 9465
