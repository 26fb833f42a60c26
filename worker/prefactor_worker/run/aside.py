"""A worker whose token the API refuses leaves its partitions to those that have a good one."""

import asyncio
from typing import Final

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.broker.consumer import Consumer

_LOOK: Final = 0.5
"""Seconds between two looks at whether the token is refused."""


async def keep_aside(consumer: Consumer, breaker: CircuitBreaker) -> None:
    """Have the consumer stand aside whenever the API refuses the token; it rejoins once the API takes it.

    Goes on until it is cancelled.

    Args:
        consumer: Who owns partitions.
        breaker: What knows about the token.
    """
    while True:
        if breaker.state.token_refused:
            consumer.stand_aside("its API token is refused")
            # Without partitions there is nothing to send, so nobody else may be there to probe.
            await breaker.wait()
            consumer.rejoin()
        await asyncio.sleep(_LOOK)
