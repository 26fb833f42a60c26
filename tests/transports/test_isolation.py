"""What crashes its owners is tried alone, and set aside after three attempts; its neighbours live."""

import pytest

from prefactor_core.broker.driver import MAX_ATTEMPTS
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_redis.broker import RedisBroker
from tests.transports.rig import PLENTY, Rig, first, is_isolated, names, own, read

AnyRig = Rig[RedisBroker] | Rig[RabbitBroker]
pytestmark = pytest.mark.usefixtures("impatience")


async def test_poison_is_tried_alone_three_times_and_its_neighbours_live(rig: AnyRig) -> None:
    await rig.consuming().partitions()
    await rig.publish(["a", "poison", "c"])
    await rig.crash_often(2, 3)
    end = rig.consuming()
    owner, messages = await first(end)
    messages += await read(owner, 3 - len(messages))
    assert not owner.isolated, "two crashes are bad luck"
    for message in messages:
        assert await owner.begin(message)
        await owner.withdraw(message)
        assert await owner.attempts(message) == 0
    assert rig.attempts_log not in await rig.left(), "nothing is recorded outside of isolation"
    await rig.crash(end)

    end, owner, message = await rig.isolated()
    assert names([message]) == ["a"]
    assert await owner.begin(message)
    assert await owner.settle([message]) == []
    (poison,) = await read(owner, 1)
    for attempts in range(MAX_ATTEMPTS):
        assert (names([poison]), await owner.attempts(poison)) == (["poison"], attempts)
        assert await owner.begin(poison)
        await rig.crash(end)
        if attempts == MAX_ATTEMPTS - 1:
            await rig.publish(["d", "e"])  # nobody has had these
        end, owner, poison = await rig.isolated()
    assert not await owner.begin(poison)
    assert rig.attempts_log in await rig.left()
    assert await owner.dead_letter([(poison, b"it kills")]) == []
    assert is_isolated(owner)
    (message,) = await owner.read(rig.in_isolation, PLENTY)
    assert names([message]) == ["c"]
    assert await owner.begin(message)
    assert await owner.settle([message]) == []
    assert not is_isolated(owner)
    fresh = await read(owner, 2)
    assert names(fresh) == ["d", "e"]
    assert all([await owner.begin(message) for message in fresh])
    assert await owner.settle(fresh) == []
    await owner.release()
    assert [dead.data for dead in await rig.all_dead()] == [b"it kills"]
    assert not any("attempts" in name or "trials" in name or "blame" in name for name in await rig.left())


async def test_attempts_of_owners_that_crashed_stand_whoever_withdraws(rig: AnyRig) -> None:
    await rig.publish("ab")
    await rig.crash_often(3, 2)
    for _ in range(MAX_ATTEMPTS + 1):  # its own attempt is taken back: the crash does not count
        end, owner, message = await rig.isolated()
        assert await owner.attempts(message) == 0
        for _ in range(2):
            assert await owner.begin(message)
            await owner.withdraw(message)
        await owner.withdraw(message)  # there is none left of this owner's
        await rig.crash(end)
    for crashes in range(MAX_ATTEMPTS + 2):
        end, owner, message = await rig.isolated()
        assert await owner.attempts(message) == crashes
        await owner.withdraw(message)  # there is none yet
        for _ in range(2):
            assert await owner.begin(message) is (crashes < MAX_ATTEMPTS)
            assert await owner.begin(message) is (crashes < MAX_ATTEMPTS), "the same attempt"
            assert await owner.attempts(message) == crashes, "this owner has not crashed"
            await owner.withdraw(message)
        assert await owner.begin(message) is (crashes < MAX_ATTEMPTS)
        if crashes == 1:  # a release takes this owner's attempt back, and no other
            await owner.release()
            end, owner, message = await rig.isolated()
            assert await owner.attempts(message) == crashes
            assert await owner.begin(message)
        await rig.crash(end)  # also beyond what is allowed it is recorded
    _, owner, message = await rig.isolated()
    assert await owner.attempts(message) == MAX_ATTEMPTS + 2


async def test_isolation_ends_with_the_last_that_may_be_poison_however_often_owners_end(rig: AnyRig) -> None:
    await rig.publish("abc")
    await rig.crash_often(3, 3)
    for _ in range(2):
        _, owner, _ = await rig.isolated()
        await owner.release()
    await rig.publish(map(str, range(30)))
    owner = await own(rig.consuming())
    settled: list[str] = []
    while len(settled) < 33:
        messages = await owner.read(rig.in_isolation if owner.isolated else 10, PLENTY)
        assert owner.isolated == (len(settled) < 3)
        assert len(messages) <= 1 or not owner.isolated
        for message in messages:
            assert await owner.begin(message)
        assert await owner.settle(messages) == []
        settled += names(messages)
    assert settled == [*"abc", *map(str, range(30))]
