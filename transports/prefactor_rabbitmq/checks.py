"""What can lose or hold up operations, in plain words."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, PublishError

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.confirming import ConfirmingChannel, Confirms, Outgoing
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names
from prefactor_rabbitmq.topology import LEAST_VERSION, Topology

_PROBE_SECONDS: Final = 3.0
_NOWHERE: Final = "no queue has this name"
_ALARM: Final = "RabbitMQ takes no messages now: its memory or disk alarm is on"
_SILENT: Final = "RabbitMQ does not answer to messages"

_Ask = Callable[[AbstractChannel, str, str], Awaitable[object]]
_PERMISSIONS: Final[tuple[tuple[str, _Ask], ...]] = (
    ("declare", lambda channel, nothing, _: channel.queue_delete(nothing, if_unused=True, if_empty=True)),
    ("bind", lambda channel, nothing, exchange: channel.queue_unbind(nothing, exchange, nothing)),
    ("read", lambda channel, nothing, _: channel.basic_get(nothing)),
)
"""What the user has to be allowed, and a command that needs it, given a queue that is not there."""


async def problems(link: Link, topology: Topology) -> list[str]:
    """Return everything that is wrong. Makes nothing, and leaves nothing.

    Raises:
        BrokerError: The connection was lost meanwhile.
    """
    version = ".".join(map(str, link.version))
    if link.version < LEAST_VERSION:
        return [f"RabbitMQ {version} is too old: 3.10 or newer is needed"]
    found = await _denied(link, topology.names) or await _look(link, topology)
    if topology.limited:
        found.append(
            f"queues were made by an older RabbitMQ than {version}, which drops what it delivers too often: "
            "set a policy with delivery-limit -1 for them, or drain and delete them"
        )
    # Dead letters go through the exchange without a name.
    for exchange in (topology.names.exchange, ""):
        problem = await _try_to_publish(link, exchange, min(link.timeout, _PROBE_SECONDS))
        if problem is not None:
            found.append(problem)
        if problem in {_ALARM, _SILENT}:
            break
    return found


async def _denied(link: Link, names: Names) -> list[str]:
    """Say what the user may not do with names under the prefix.

    The broker tells permissions to nobody, and a passive declaration needs none. But it checks them before it
    looks for what a command is about: with a name that nothing has, a command is refused or finds nothing.
    """
    denied: list[str] = []
    nothing = f"{names.prefix}.check.{secrets.token_hex(16)}"
    for verb, ask in _PERMISSIONS:
        async with link.brief_channel("trying permissions") as channel:
            try:
                await ask(channel, nothing, names.exchange)
            except ChannelNotFoundEntity:
                continue
            except ChannelAccessRefused as error:
                denied.append(
                    f"the user may not {verb} what begins with {names.prefix}.: grant configure, write and "
                    f"read on such names ({error})"
                )
    return denied


async def _look(link: Link, topology: Topology) -> list[str]:
    try:
        missing = await topology.look(link)
    except BrokerError as error:
        if not link.sound:
            raise
        return [str(error)]
    return [
        f"{name} is missing, with what was in it; the next agent or worker makes it again" for name in missing
    ]


async def _try_to_publish(link: Link, exchange: str, seconds: float) -> str | None:
    """Publish what cannot be routed: a broker that takes messages returns it."""
    confirms = Confirms()
    async with link.bounded("trying to publish"):
        channel = await ConfirmingChannel.open(link)
        await channel.publish([Outgoing(exchange, _NOWHERE, b"{}")], confirms)
    answered = await confirms.wait(seconds)
    channel.done_with(confirms)
    if not answered:
        return _ALARM if await link.is_blocked() else _SILENT
    error = confirms.error
    if isinstance(error, ChannelAccessRefused):
        where = f"the exchange {exchange}" if exchange else "the default exchange, which dead letters need"
        return f"the user may not publish through {where}: grant write ({error})"
    if not isinstance(error, PublishError) and not link.sound:
        raise BrokerError("the connection was lost while trying to publish")
    return None
