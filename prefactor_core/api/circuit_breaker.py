"""The circuit breaker: whether sending makes sense, and whether a failure is the API's or the operation's.

A failure says nothing about an operation while the API fails everybody. So after a failure the API has to be
proved well, by another success or by a ping, before the failure counts; and it counts for less, the more
often the API has been failing first sendings of others lately.

While the API is unavailable the circuit is open: one sender probes it with growing patience, the others wait
for that one, and no operation loses an attempt. Where only a write can prove it well, a ping that succeeds
makes the circuit half-open.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prefactor_core.api.endpoint import Endpoint
from prefactor_core.api.replies import TOKEN_STATUSES, Reply
from prefactor_core.exceptions import OperationError, PrefactorTelemetryFailureError
from prefactor_core.execution.retry import RetryPolicy

logger = logging.getLogger("prefactor_core.api")

_LONGEST_PROBE_WAIT: Final = 10.0
"""Bound of the wait between two probes, in seconds: how late we are at most when it is back."""
_RATE_WEIGHT: Final = 0.1
"""How much one sending moves the failure rate: it looks back over some twenty of them."""
_USUAL_RATE: Final = 0.03
"""The failure rate up to which a failure counts as a whole attempt."""
_HIGHEST_RATE: Final = 0.5
"""The failure rate from which on a failure does not count for less still."""
_HEARSAY: Final = 0.5
"""What a failure counts for that the API itself did not speak of: no reply, or a proxy's page."""
_FAILED_REQUESTS: Final = 4
_FAILED_LANES: Final = 3
"""So many requests of so many lanes failing in a row, with nothing done between, is no fault of theirs."""
_PROOF_LASTS: Final = 1.0
"""Seconds for which a success or a ping is proof enough that the API is well."""


@dataclass(slots=True)
class _Open:
    reason: str
    needs_answer: bool  # to a write, by the API itself; else a ping closes it
    failures: int = 1


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What is known of the API now.

    Attributes:
        unavailable: Why everything waits, if it does.
        token_refused: Whether that is because the API refuses the token.
        paused: Seconds for which the API has asked everybody to wait.
    """

    unavailable: str | None = None
    token_refused: bool = False
    paused: float = 0.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request since a time of the event loop. Others wait for the end of a probe."""

    since: float
    probe: bool = False


class CircuitBreaker:
    """What is known of the API's health, shared by everybody who sends to it.

    Whatever may ping raises ``PrefactorTelemetryFailureError`` where a refused token is final.

    Args:
        ping: Asks the API for a sign of life that also checks the token.
        retry: Backoff between probes.
        latch: Whether a refused token ends everything (in an agent's process) or is waited out like an
            outage (in a worker, whose token can be mended).
        endpoint: What messages call the API.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[Reply]],
        retry: RetryPolicy,
        *,
        latch: bool,
        endpoint: Endpoint = Endpoint(),  # noqa: B008 -- immutable
    ) -> None:
        self._ping = ping
        self._retry = retry
        self._latch = latch
        self._endpoint = endpoint
        self._open: _Open | None = None
        self._probing = asyncio.Lock()
        self._pinging = asyncio.Lock()
        self._paused_until = 0.0
        self._proved_at = -math.inf
        self._failure_rate = _USUAL_RATE
        self._failed_requests = 0
        self._failed_lanes: set[object] = set()
        self._token_refused = False
        self._half_open = False
        self._no_probe = asyncio.Event()
        self._no_probe.set()

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """Wait until sending makes sense, and keep the permit for as long as the request takes."""
        loop = asyncio.get_running_loop()
        await self.wait()
        if self._open is None:
            yield Permit(loop.time())
            return
        self._half_open = False
        self._no_probe.clear()
        try:
            yield Permit(loop.time(), probe=True)
        finally:
            self._no_probe.set()

    @property
    def ready(self) -> bool:
        """Whether ``permit`` gives one at once: the API is well, or a probe with a write is due."""
        if self._open is not None and not self._half_open:
            return False
        return self._paused_until <= asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Wait until ``ready``. One of those who wait probes; the others wait for that one."""
        while not self.ready:
            await self._wait_for_hold()
            async with self._probing:
                await self._no_probe.wait()
                if self._open is not None and not self._half_open:
                    self._half_open = await self._probe(self._open)

    async def prove(self) -> bool:
        """Return whether the API is well: something was done within the last second, or a ping says so.

        While a probe with a write is due, the ping that made it due says so.
        """
        if self._open is not None:
            return self._half_open
        return await self._is_well(asyncio.get_running_loop().time() - _PROOF_LASTS)

    @property
    def state(self) -> CircuitState:
        """What is known of the API now."""
        paused = max(0.0, self._paused_until - asyncio.get_running_loop().time())
        if self._open is None:
            return CircuitState(paused=paused)
        return CircuitState(self._open.reason, self._token_refused, paused)

    async def check(self) -> None:
        """Ask for a sign of life before there is anything to send."""
        await self._is_well(asyncio.get_running_loop().time())

    def succeeded(self, *, first: bool) -> None:
        """Note that a request was done; ``first`` if nothing in it had been sent before."""
        self._proved_at = asyncio.get_running_loop().time()
        self._failed_requests = 0
        self._failed_lanes.clear()
        if first:
            self._failure_rate *= 1 - _RATE_WEIGHT
        self._recover()

    async def failed(self, permit: Permit, reply: Reply, lanes: Iterable[object], *, first: bool) -> float:
        """Note that a request of these lanes failed; ``first`` as in ``succeeded``.

        Returns:
            How much of an attempt that was: 1 if the API is well, 0 if it is unavailable.
        """
        if first:
            self._failure_rate += (1 - self._failure_rate) * _RATE_WEIGHT
        self._failed_requests += 1
        if len(self._failed_lanes) < _FAILED_LANES:
            self._failed_lanes.update(lanes)
        if self._open is not None:
            self._open.failures += permit.probe
            return 0.0
        if not await self._is_well(permit.since, instead=reply):
            return 0.0
        if self._fails_everybody():
            self._trip(reply, needs_answer=True)
            return 0.0
        rate = min(max(self._failure_rate, _USUAL_RATE), _HIGHEST_RATE)
        weight = math.log(rate) / math.log(_USUAL_RATE)
        return weight if reply.code is not None else weight * _HEARSAY

    async def refused(self, permit: Permit, reply: Reply, operation_type: str) -> bool:
        """Find out whether a request was not allowed (401, 403) because of the token.

        Returns:
            Whether it was the request's own fault: the token is good.
        """
        self.answered(permit)
        if self._open is not None:
            self._open.failures += permit.probe
            return False
        # What was proved during the request does not tell: the token may have been revoked since.
        now = asyncio.get_running_loop().time()
        return await self._is_well(now, instead=reply, operation_type=operation_type)

    def answered(self, permit: Permit) -> None:
        """Note that the API itself has answered a write, if only by refusing it."""
        if permit.probe and self._open is not None and self._open.needs_answer:
            self._recover()

    def throttled(self, permit: Permit, retry_after: float) -> None:
        """Note that the API asks everybody to wait ``retry_after`` seconds."""
        if self._open is not None:
            self._open.failures += permit.probe
        until = asyncio.get_running_loop().time() + retry_after
        self._paused_until = max(self._paused_until, until)

    # -- inside

    async def _wait_for_hold(self) -> None:
        loop = asyncio.get_running_loop()
        while (hold := self._paused_until - loop.time()) > 0:  # noqa: ASYNC110 -- it is a time, not an event
            await asyncio.sleep(hold)

    def _fails_everybody(self) -> bool:
        return self._failed_requests >= _FAILED_REQUESTS and len(self._failed_lanes) >= _FAILED_LANES

    async def _is_well(
        self, since: float, instead: Reply | None = None, operation_type: str | None = None
    ) -> bool:
        """Ping, unless something was proved after ``since``; find the API unavailable if that fails.

        The reason is then ``instead``, what made us ask, unless the token is refused.
        """
        async with self._pinging:
            if self._open is not None:
                return False
            if self._proved_at > since:
                return True
            reply = await self._ping()
            if self._is_pong(reply, operation_type):
                self._proved_at = asyncio.get_running_loop().time()
                return True
            self._trip(reply if instead is None or self._token_refused else instead, needs_answer=False)
            return False

    def _is_pong(self, reply: Reply, operation_type: str | None = None) -> bool:
        self._token_refused = reply.status in TOKEN_STATUSES and reply.code is not None
        if self._token_refused and self._latch:
            endpoint = self._endpoint
            raise PrefactorTelemetryFailureError(
                f"prefactor: the API at {endpoint.url} refuses the token ({reply}): {endpoint.advice(reply)}",
                cause=OperationError(str(reply), operation_type, reply.status, reply.code),
                operation_type=operation_type,
            )
        return reply.succeeded and reply.body is not None

    async def _probe(self, open_: _Open) -> bool:
        """Wait, then ping. Return whether the caller is to try with a write."""
        await asyncio.sleep(min(self._retry.delay(open_.failures), _LONGEST_PROBE_WAIT))
        await self._wait_for_hold()
        if not self._is_pong(await self._ping()):
            open_.failures += 1
            return False
        if open_.needs_answer:
            return True
        self._recover()
        return False

    def _trip(self, reply: Reply, *, needs_answer: bool) -> None:
        reason = f"it answers pings, and no write: {reply}" if needs_answer else str(reply)
        self._open = _Open(reason, needs_answer)
        url, advice = self._endpoint.url, self._endpoint.advice(reply)
        if self._token_refused:
            logger.warning(
                "prefactor: the API at %s refuses the token (%s), and nothing is sent until it takes it: %s",
                *(url, reason, advice),
            )
        else:
            logger.warning(
                "prefactor: the API at %s is unavailable, and everything waits for it: %s; %s",
                *(url, reason, advice),
            )

    def _recover(self) -> None:
        if self._open is None:
            return
        logger.warning(
            "prefactor: the API at %s is back, after %d probes", self._endpoint.url, self._open.failures
        )
        self._open = None
        self._half_open = False
        self._failed_requests = 0
        self._failed_lanes.clear()
