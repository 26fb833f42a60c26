"""Workers that stand aside: no part of the fleet, and counted for those who look."""

from tests.transports.rabbitmq.rig import Rig, cut, until


async def test_who_stands_aside_is_not_in_the_fleet(rig: Rig) -> None:
    working, refused, looking = rig.consuming(), rig.consuming(), rig.consuming()
    assert await looking.standing_aside() == 0
    assert not await rig.exists("workers")
    await working.fleet()
    assert (await refused.fleet()).size == 2
    for _ in range(3):
        await refused.stand_aside()

        async def is_aside() -> bool:
            return (await working.fleet()).size == 1 and await looking.standing_aside() == 1

        await until(is_aside, "a fleet without who stands aside")

    async def is_back() -> bool:
        return (await refused.fleet()).size == 2 and await looking.standing_aside() == 0

    await until(is_back, "it to be back")
    assert not await rig.exists("aside")


async def test_all_may_stand_aside_and_end_so(rig: Rig) -> None:
    ends = [rig.consuming() for _ in range(3)]
    looking = rig.consuming()
    for end in ends:
        await end.fleet()
        await end.stand_aside()
    assert await looking.standing_aside() == 3

    async def nobody_works() -> bool:
        return not await rig.exists("workers")

    await until(nobody_works, "an empty fleet")
    await ends[0].disconnect()
    cut(ends[1])

    async def one_is_left() -> bool:
        return await looking.standing_aside() == 1

    await until(one_is_left, "those that ended to be gone")
    await ends[1].stand_aside()  # it has only lost its connection
    assert await looking.standing_aside() == 2
