"""A message that kills its owners is set aside; its neighbours live, and clean ends do not count."""

import pytest

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq import partition as partition_module
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from tests.transports.rabbitmq.rig import Rig, crash_often, cut, first, names, own, read, until


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_module, "READ_SECONDS", 0.3)


async def _drain(end: RabbitConsumingEnd) -> list[str]:
    drained: list[str] = []

    async def empty() -> bool:
        owner = await end.acquire(0, 10)
        while owner is not None and owner.held:
            messages = await owner.read(10, 1 << 20)
            for message in messages:
                assert await owner.begin(message)
            if not await owner.settle(messages):
                drained.extend(names(messages))
            if not messages and not owner.isolated:
                await owner.release()
                return True
        return False

    await until(empty, "an empty partition")
    return drained


async def test_a_poison_is_tried_alone_three_times_and_its_neighbours_live(rig: Rig) -> None:
    await rig.publish("abc")
    await crash_often(rig, 3)
    trials = 0
    while True:
        end = rig.consuming()
        owner, (message,) = await first(end)
        assert owner.isolated
        assert names([message]) == ["a"]
        if not await owner.begin(message):
            break
        trials += 1
        cut(end)
    assert trials == 3
    assert await rig.exists("0.trials")
    assert not await owner.dead_letter([(message, b"record")])
    await owner.release()
    assert await _drain(end) == ["b", "c"]
    assert not await rig.exists("0.trials")
    await rig.publish("def")
    owner, messages = await first(end)
    assert not owner.isolated
    assert [letter.data async for letter in rig.dead_letters().read()] == [b"record"]
    del messages


async def test_two_crashes_are_no_reason_for_care(rig: Rig) -> None:
    await rig.publish("abc")
    await crash_often(rig, 2)
    owner, messages = await first(rig.consuming())
    assert not owner.isolated
    assert len(messages) == 3
    assert all([await owner.begin(message) for message in messages])


async def test_clean_ends_are_not_held_against_a_message(rig: Rig) -> None:
    await rig.publish("abc")
    end = rig.consuming()
    for _ in range(8):
        owner = await own(end)
        assert not owner.isolated
        await read(owner, 3)
        await owner.release()
    other = rig.consuming()
    assert await _drain(other) == ["a", "b", "c"]


async def test_clean_ends_in_the_middle_of_a_trial_do_not_count(rig: Rig) -> None:
    await rig.publish("abc")
    await crash_often(rig, 3)
    for _ in range(5):
        end = rig.consuming()
        owner, (message,) = await first(end)
        assert await owner.begin(message)
        await owner.release()
    end = rig.consuming()
    for _ in range(5):  # and neither do connections that this process has survived
        owner, (message,) = await first(end)
        assert await owner.begin(message)
        cut(end)
    assert await _drain(end) == ["a", "b", "c"]


async def test_care_ends_with_the_last_suspect(rig: Rig) -> None:
    await rig.publish("abc")
    await crash_often(rig, 3)
    await rig.publish(map(str, range(30)))
    owner, messages = await first(rig.consuming())
    settled: list[str] = []
    isolated: list[bool] = []
    while len(settled) < 33:
        assert owner.isolated == (len(settled) < 3)
        assert len(messages) == 1 or not owner.isolated
        for message in messages:
            assert await owner.begin(message)
        assert not await owner.settle(messages)
        isolated.append(owner.isolated)
        settled += names(messages)
        if len(settled) < 33:
            messages = await owner.read(10, 1 << 20)
    assert settled == [*"abc", *map(str, range(30))]
    assert len(isolated) == 6


async def test_begin_needs_the_partition(rig: Rig) -> None:
    await rig.publish("a")
    owner, (message,) = await first(rig.consuming())
    assert await owner.begin(message)
    await owner.release()
    with pytest.raises(BrokerError):
        await owner.begin(message)
