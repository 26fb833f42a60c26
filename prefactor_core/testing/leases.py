"""The contract, part 12: an owner is never sure for longer than its broker is, however late that answers."""

import asyncio
from contextlib import AsyncExitStack
from itertools import product

from prefactor_core.testing.base import Contract
from prefactor_core.testing.drivers import consuming
from prefactor_core.testing.lateness import Drag, Owner, Rival, stand_still
from prefactor_core.testing.transport import Transport

_RENEWING = 6
_ACQUIRING = 4
# Parts of a lease. In the time of one, most drivers renew it three or four times.
_TURN = 0.04
_LATE = 0.35
"""Long enough to matter, and short enough that an owner is sure still when the answer comes."""
_READ = 0.1
"""Long enough to read answers, and too short for the next renewal."""
_LONGEST = 1.5


class LeaseContract(Contract):
    """How long an owner is sure counts from before it asked."""

    async def test_an_answer_that_comes_late(self, transport: Transport) -> None:
        """Given owners whose broker is slow to answer, when another takes over, then no two are sure at once.

        Owners acquire and renew at different moments, so that some have asked and not read the answer when
        the event loop stands still. They read it late, then nothing is renewed any more, and a rival in
        another thread takes over as soon as the broker lets it.
        """
        lease = transport.dies_within
        url = transport.at(partitions=_RENEWING + _ACQUIRING)
        rival = Rival(transport, url)
        try:
            await rival.ready()
            owners = await self._owners(transport, url, rival, lease)
        finally:
            taken = await rival.stop()
        for owner, other in product(owners, taken):
            how = "renewed" if owner.number < _RENEWING else "acquired"
            assert not owner.overlaps(other), (
                f"two owners at once for {min(owner.until, other.until) - other.since:.2f} s: the lease that "
                f"one of them had {how} ran out before it knew; does it count from when it asked?"
            )

    async def _owners(self, transport: Transport, url: str, rival: Rival, lease: float) -> list[Owner]:
        """Acquire all partitions, with late answers, and lose them; return who was sure, and when."""
        async with transport.shared(url) as queue, AsyncExitStack() as stack:
            ends = [
                await stack.enter_async_context(consuming(queue.broker))
                for _ in range(_RENEWING + _ACQUIRING)
            ]
            owners = [Owner(end, number) for number, end in enumerate(ends)]
            renewing, acquiring = owners[:_RENEWING], owners[_RENEWING:]
            for owner in acquiring:  # so that all that is missing is the lease
                await owner.acquire()
                await owner.release()
            for owner in renewing:
                await owner.acquire()
                await asyncio.sleep(lease / 4 / _RENEWING)
            tasks: list[asyncio.Task[bool]] = []
            with Drag(lease * _TURN):
                for _ in range(_ACQUIRING):
                    await asyncio.sleep(0)
                for owner in acquiring:
                    tasks.append(asyncio.create_task(owner.acquire()))
                    await asyncio.sleep(0)
                stand_still(lease * _LATE)
            await asyncio.sleep(lease * _READ)

            def some_are_sure() -> bool:
                sure = [owner.number for owner in owners if owner.is_sure()]
                rival.want(sure)
                return bool(sure)

            stand_still(lease * _LONGEST, some_are_sure)
            async with asyncio.timeout(transport.patience):
                await asyncio.gather(*tasks)
                for owner in owners:
                    owner.is_sure()
                    await owner.release()
        return owners
