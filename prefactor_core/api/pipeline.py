"""The pipeline that empties a queue into the API: HTTP client, circuit breaker, delivery, executor.

An agent that sends from its own process and a worker differ only in what they pass here.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.api.delivery import Api, ApiDelivery
from prefactor_core.api.endpoint import Endpoint
from prefactor_core.api.http import HttpApi
from prefactor_core.api.packing import BULK_LIMITS
from prefactor_core.api.replies import Reply
from prefactor_core.api.terminations import OnTerminated, Terminations
from prefactor_core.config import HttpClientConfig
from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchHandler, BatchLimits
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage
from prefactor_core.plugins import observers
from prefactor_core.queue.base import Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.texts import plain_url

P = TypeVar("P")

_LINGER: Final = 0.01
"""Seconds that a small batch may grow: telemetry is not urgent, and requests are what costs."""


def _as_it_is(part: P) -> P:
    return part


class Pipeline:
    """The parts, put together. Start and stop the ``executor``, then close ``http``.

    ``concurrency`` is how many requests are in flight at most. ``ping`` stands in for ``http.ping``;
    ``around_api`` wraps the HTTP client and ``around_delivery`` the delivery that uses it, to measure them;
    ``observer`` is told what the installed observers are. The other arguments are those of the parts.
    """

    def __init__(
        self,
        queue: Queue[Any],
        http: HttpClientConfig,
        retry: RetryPolicy,
        concurrency: int,
        sdk_header: Callable[[], str],
        *,
        latch: bool,
        token: Callable[[], str] | None = None,
        ping: Callable[[], Awaitable[Reply]] | None = None,
        limits: BatchLimits = BULK_LIMITS,
        around_api: Callable[[Api], Api] = _as_it_is,
        around_delivery: Callable[[ApiDelivery], BatchHandler[Operation]] = _as_it_is,
        observer: object = None,
        on_terminated: OnTerminated | None = None,
        on_failure: Callable[[PrefactorTelemetryFailureError], Awaitable[None]] | None = None,
        outage: Outage | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self.http = HttpApi(http, sdk_header, connections=concurrency + 1, token=token)
        self.breaker = CircuitBreaker(
            ping or self.http.ping, retry, latch=latch, endpoint=endpoint or Endpoint(plain_url(http.api_url))
        )
        self.terminations = Terminations(on_terminated)
        delivery = ApiDelivery(
            around_api(self.http), self.breaker, http.retry_on_status_codes, self.terminations, limits
        )
        self.executor = TaskExecutor(
            queue,
            around_delivery(delivery),
            concurrency,
            retry=retry,
            dependents=Dependents(),
            linger=_LINGER,
            observe=observers() if observer is None else observers(observer),
            on_failure=on_failure,
            outage=outage,
        )
