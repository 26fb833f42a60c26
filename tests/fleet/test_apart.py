"""Instances that the API rejects, many of them: the good ones beside them go on, and dead letters are few.

``python -m benchmarks.rejections`` has the figures.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from prefactor_core import Operation
from prefactor_core.broker.queue import BrokerQueue
from tests.fleet.scenario import effect_keys, key_of, keys_of
from tests.support.fleet import Fleet, until
from tests.support.lives import rejected, whole
from tests.support.watched_api import watched_api
from tests.support.watching import FULL, Probed, dead_letters, fault_hits, probed_worker, set_faults

BAD = 300 if FULL else 100
GOOD = 40 if FULL else 10
OPERATIONS = 20
PROBING_SECONDS = 20.0 if FULL else 8.0
REJECTIONS = 20
"""So many without a success, and nothing more is dead-lettered; their dependents are not counted."""
REQUESTS_PER_SECOND = 10.0
"""Twice what probing may cost by then."""


async def put(queue: BrokerQueue, lives: Sequence[Sequence[Operation]], pace: float = 0.0) -> set[str]:
    """Put all operations, one of each instance after the other; return their keys."""
    for turn in range(max(map(len, lives))):
        for life in lives:
            if turn < len(life):
                await queue.put(life[turn])
        await asyncio.sleep(pace)
    return keys_of([one for life in lives for one in life])


@asynccontextmanager
async def publishing(fleet: Fleet) -> AsyncIterator[BrokerQueue]:
    """A queue to put in, for the length of an ``async with``."""
    queue = fleet.queue(buffer_operations=100_000)
    try:
        yield queue
    finally:
        await queue.close()
        await queue.disconnect()


async def ready(fleet: Fleet, *options: str) -> Probed:
    worker = await probed_worker(fleet, *options)
    await until(lambda: worker.answers("/readyz", 200), 180, "it is ready")
    return worker


@pytest.mark.parametrize(("kind", "taken", "requests"), [("unknown", 0, 3), ("finished", 3, 6)])
async def test_good_instances_go_on_beside_many_bad_ones(
    fleet: Fleet, kind: str, taken: int, requests: int
) -> None:
    """The bad ones were never registered, or are over: each is lost as a whole, for very few requests."""
    bad = [rejected(kind, OPERATIONS) for _ in range(BAD)]
    good = [whole(OPERATIONS) for _ in range(GOOD)]
    valid = keys_of([one for life in bad for one in life[:taken]])
    lost = keys_of([one for life in bad for one in life[taken:]])
    kept = keys_of([one for life in good for one in life])

    async def all_good() -> bool:
        return kept <= await effect_keys(fleet)

    async def all_bad() -> bool:
        return len(await dead_letters(fleet)) >= len(lost)

    found_out = asyncio.Event()

    async def go_on(queue: BrokerQueue) -> None:
        # Without a success in between, so many rejections would be held as the API's fault.
        while not found_out.is_set():
            kept.update(await put(queue, [whole(OPERATIONS)]))
            await asyncio.sleep(0.5)

    async with watched_api(fleet.emulator.url) as (api, url):
        await ready(fleet, "--api-url", url)
        async with publishing(fleet) as queue:
            await asyncio.gather(put(queue, bad), put(queue, good, 0.1))
            going_on = asyncio.create_task(go_on(queue))
            try:
                await until(all_bad, 180, "the bad ones are dead letters")
            finally:
                found_out.set()
                await going_on
            assert await queue.flush(180)
        await until(all_good, 180, "the good ones are done")  # how late, the engine shows in virtual time
        all_dead = await dead_letters(fleet)
        owners = {one.idempotency_key or "": one.instance_id or "" for life in bad for one in life}
        mean = api.answers(owners).total() / BAD
    assert await effect_keys(fleet) == kept | valid
    assert {key_of(dead) for dead in all_dead} == lost
    # What is valid, the bulk request that finds it out, and one more; some for what breaks off meanwhile.
    assert mean <= requests


async def test_when_everything_is_rejected_few_are_lost_and_the_rest_waits(fleet: Fleet) -> None:
    """As with a wrong base URL: after 20 dead letters only probes, and a success frees what waits."""
    await ready(fleet)
    await set_faults(fleet.emulator, "reject:status=404")
    async with publishing(fleet) as queue:
        keys = await put(queue, [whole(OPERATIONS) for _ in range(BAD)])
        assert await queue.flush(180)

    async def some() -> bool:
        return bool(await dead_letters(fleet))

    await until(some, 180, "some are dead letters")
    await asyncio.sleep(PROBING_SECONDS)
    (before,) = await fault_hits(fleet.emulator)
    await asyncio.sleep(PROBING_SECONDS)
    (after,) = await fault_hits(fleet.emulator)
    all_dead = await dead_letters(fleet)
    rate = (after - before) / PROBING_SECONDS
    async with publishing(fleet) as queue:
        keys |= await put(queue, [whole(OPERATIONS)])
        assert await queue.flush(180)
    await set_faults(fleet.emulator)

    async def accounted_for() -> bool:
        return len(await effect_keys(fleet)) + len(await dead_letters(fleet)) >= len(keys)

    await until(accounted_for, 180, "what waited is delivered")
    in_the_end = await dead_letters(fleet)
    rejections = sum(dead.reply is not None for dead in all_dead)
    assert rejections <= REJECTIONS
    assert rate <= REQUESTS_PER_SECOND
    # What was in flight when it was mended may still be rejected, with its dependents.
    assert len(in_the_end) <= (REJECTIONS + 4) * OPERATIONS
    assert await effect_keys(fleet) == keys - {key_of(dead) for dead in in_the_end}
