"""Who takes part in the fleet, and who stands aside."""

from prefactor_core.broker.driver import Fleet
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_redis.broker import RedisBroker
from tests.transports.rabbitmq.rig import RabbitRig, cut
from tests.transports.redis.rig import RedisRig
from tests.transports.rig import Rig, until

AnyRig = Rig[RedisBroker] | Rig[RabbitBroker]


async def test_the_fleet_and_who_stands_aside(rig: AnyRig) -> None:
    ends = [rig.consuming() for _ in range(3)]
    looking = rig.consuming()

    async def counted(ends_at_work: int, aside: int) -> bool:
        sizes = [(await end.fleet()).size for end in ends[:ends_at_work]]
        return sizes == [ends_at_work] * ends_at_work and await looking.standing_aside() == aside

    async def nobody() -> bool:
        return "workers" not in " ".join(await rig.left())

    assert [(await end.fleet()).size for end in ends] == [1, 2, 3]
    await until(lambda: counted(3, 0), "a fleet of three")
    for aside, end in enumerate(reversed(ends), 1):
        for _ in range(3):
            await end.stand_aside()
        await until(lambda aside=aside: counted(3 - aside, aside), f"{aside} that stand aside")  # type: ignore[misc]
    await until(nobody, "an empty fleet")
    await until(lambda: counted(2, 1), "two that are back")
    for end in ends:
        await end.disconnect()
    await until(lambda: counted(0, 0), "those that ended to be gone")
    await looking.disconnect()
    await until(nobody, "an empty fleet")
    assert not any("aside" in name for name in await rig.left())


async def test_redis_tells_the_places_in_the_fleet_and_forgets_the_dead(redis_rig: RedisRig) -> None:
    workers, aside = (redis_rig.key(name, None) for name in ("workers", "aside"))
    async with redis_rig.raw() as raw:
        await raw.zadd(workers, {"dead": 1.0})
        first, second = redis_rig.consuming(), redis_rig.consuming()
        assert await first.fleet() == Fleet(1, 0)
        await second.fleet()
        fleets = [await first.fleet(), await second.fleet(), await first.fleet()]
        assert [fleet.size for fleet in fleets] == [2, 2, 2]
        assert {fleets[0].rank, fleets[1].rank} == {0, 1}
        assert fleets[0] == fleets[2]
        await second.stand_aside()
        assert await first.fleet() == Fleet(1, 0)
        await raw.zadd(aside, {"dead": 1.0})
        assert await first.standing_aside() == 1
        assert 0 < await raw.pttl(aside) <= 15_000
        await redis_rig.consuming().stand_aside()
        assert await raw.zscore(aside, "dead") is None


async def test_rabbitmq_forgets_who_is_cut_off_and_makes_the_fleet_again(
    rabbit_rig: RabbitRig,
) -> None:
    ends = [rabbit_rig.consuming() for _ in range(2)]
    for end in ends:
        await end.fleet()
    assert (await ends[0].fleet()).rank is None
    await rabbit_rig.delete("workers")

    async def both() -> bool:
        return [(await end.fleet()).size for end in ends] == [2, 2]

    async def one_stands_aside() -> bool:
        return await ends[0].standing_aside() == 1

    await until(both, "a fleet that came together again")
    for end in ends:
        await end.stand_aside()
    assert await ends[0].standing_aside() == 2
    cut(ends[1])
    await until(one_stands_aside, "the lost connection to be noticed")
    await ends[1].stand_aside()  # it has only lost its connection
    assert await ends[0].standing_aside() == 2
