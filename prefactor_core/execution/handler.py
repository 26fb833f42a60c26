"""What the executor hands deliveries to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.execution.outcome import SETTLED, Dead, Outcome, Retry
from prefactor_core.queue.base import Delivery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a handler takes in one call at most; a single larger delivery is still handed over."""

    max_items: int
    max_bytes: int
    max_lanes: int


ONE_ITEM: Final = BatchLimits(max_items=1, max_bytes=1, max_lanes=1)


class BatchHandler(Protocol[T]):
    """Carries out deliveries of several lanes in one go."""

    @property
    def limits(self) -> BatchLimits:
        """What the next call may be given; asked before each."""
        ...

    async def handle(self, deliveries: Sequence[Delivery[T]]) -> Sequence[Outcome]:
        """Carry out ``deliveries`` and return an outcome for each, in their order.

        Deliveries of a lane stand together and in order. An outcome other than ``Settled`` or ``Dead``
        means that nothing behind it in its lane has happened.

        It is cancelled when the executor stops. One that has to wait for what it speaks to has a
        ``circuit`` as well: the executor waits for that before it takes a batch, so that nothing that only
        waits is counted as handled, and a call when it is not ready answers ``NotReached`` for everything.

        Raises:
            PrefactorTelemetryFailureError: Nothing will ever be delivered: the executor ends.
            Exception: Counts against every delivery, as ``Retry`` does.
        """
        ...


class Circuit(Protocol):
    """Whether what a handler speaks to is there: a circuit breaker."""

    @property
    def ready(self) -> bool:
        """Whether a call makes sense now."""
        ...

    async def wait(self) -> None:
        """Wait until ``ready``. May raise ``PrefactorTelemetryFailureError``, as ``handle``."""
        ...

    async def prove(self) -> bool:
        """Return whether a call would reach what is well; asks, if that is unknown. May raise as ``wait``."""
        ...


class NoCircuit:
    """The circuit of a handler that has none: always ready."""

    ready = True

    async def wait(self) -> None:
        """Wait for nothing."""

    async def prove(self) -> bool:
        """Return ``True``."""
        return True


class EachItem:
    """Makes a batch handler of a function that carries out one item, or raises.

    ``is_retryable`` says whether an exception is worth another attempt; by default all are.
    """

    limits = ONE_ITEM

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[None]],
        is_retryable: Callable[[Exception], bool] | None = None,
    ) -> None:
        self._handler = handler
        self._is_retryable = is_retryable

    async def handle(self, deliveries: Sequence[Delivery[Any]]) -> list[Outcome]:
        """Call the function with the one item."""
        (delivery,) = deliveries
        try:
            await self._handler(delivery.item)
        except PrefactorTelemetryFailureError:
            raise
        except Exception as error:  # noqa: BLE001 -- the function is the caller's own
            delivery.maybe_sent = True
            reason = f"{type(error).__name__}: {error}"
            if self._is_retryable is not None and not self._is_retryable(error):
                return [Dead(reason)]
            return [Retry(reason)]
        return [SETTLED]
