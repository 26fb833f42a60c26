"""What is declared, and what is there already."""

import pytest

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.topology import recorded_count
from tests.transports.rabbitmq.rig import RabbitRig


def _refusal(argument: str, received: str, current: str, queue: str = "a.partitions") -> str:
    """As the broker words it."""
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
        f"received {received} but current is {current}"
    )


def test_the_recorded_number_is_read_from_the_refusal(subtests: pytest.Subtests) -> None:
    number = "the value '16' of type"
    for text in (
        _refusal("x-max-length", "'5'", "'16'"),
        _refusal("x-max-length", "the value '5' of type 'signedint'", f"{number} 'signedint'"),
        _refusal("x-max-length", "none", f"{number} 'byte'", "it's '3'"),
    ):
        assert recorded_count(text, "a.partitions") == 16, text
    for text in (
        _refusal("x-max-length", "'5'", "none"),
        _refusal("x-max-length", "'5'", "'0'"),
        _refusal("x-max-length", "'5'", "'-3'"),
        _refusal("x-queue-type", "none", f"{number} 'longstr'"),
        _refusal("durable", "'true'", "'false'"),
        "something else",
        "",
    ):
        with subtests.test(text=text), pytest.raises(BrokerError, match="another prefix"):
            recorded_count(text, "q")


async def test_somebody_elses_queue_is_named_in_plain_words(rig: RabbitRig) -> None:
    async with rig.channel() as channel:
        await channel.queue_declare(f"{rig.prefix}.1", durable=True)
    (problem,) = await rig.broker().check()
    assert f"the queue {rig.prefix}.1 exists and was not made by this version" in problem
    assert not await rig.exists("partitions"), "it is found before anybody uses the broker"
    end = rig.publishing()
    with pytest.raises(BrokerError, match=rf"{rig.prefix}\.1 exists .* another prefix"):
        await end.partitions()
    (problem,) = await rig.broker().check()
    assert f"{rig.prefix}.1" in problem
    assert "another prefix" in problem


async def test_what_is_missing_is_said_and_not_made(rig: RabbitRig) -> None:
    await rig.publish(["a"])
    assert await rig.broker().check() == []
    await rig.delete("1")
    (problem,) = await rig.broker().check()
    assert f"{rig.prefix}.1 is missing" in problem
    assert not await rig.exists("1")
