"""Who takes part in the fleet, and who stands aside."""

import redis

from prefactor_core.broker.driver import Fleet
from tests.transports.redis.conftest import Ends


async def test_standing_aside(ends: Ends, raw: redis.Redis) -> None:
    first, second, looker = (ends.consuming() for _ in range(3))
    await first.fleet()
    assert await second.fleet() == await second.fleet()
    assert await looker.standing_aside() == 0
    for _ in range(2):
        await second.stand_aside()
        assert await looker.standing_aside() == 1
    assert await first.fleet() == Fleet(1, 0)
    assert (await second.fleet()).size == 2
    assert await looker.standing_aside() == 0
    await first.stand_aside()
    await second.stand_aside()
    assert await looker.standing_aside() == 2
    assert await looker.fleet() == Fleet(1, 0)
    for end in (first, second, looker):
        await end.disconnect()
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))


async def test_one_that_died_while_it_stood_aside(ends: Ends, raw: redis.Redis) -> None:
    aside = f"{{{ends.prefix}}}:aside"
    await ends.consuming().stand_aside()
    raw.zadd(aside, {"dead": 1.0})
    assert await ends.consuming().standing_aside() == 1
    assert 0 < raw.pttl(aside) <= 15_000
    await ends.consuming().stand_aside()
    assert raw.zscore(aside, "dead") is None


async def test_clearing_a_prefix(ends: Ends, raw: redis.Redis) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.partitions()
    await publisher.publish(0, [b"1"])
    await consumer.acquire(0, 10)
    await consumer.fleet()
    await ends.consuming().stand_aside()
    raw.hset(f"{{{ends.prefix}:0}}:blame", "token", "")
    await ends.broker().clear()
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))
