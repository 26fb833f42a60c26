"""What the user of a URL may not do, and has to."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names

Ask = Callable[[AbstractChannel, str, str], Awaitable[object]]


async def _configure(channel: AbstractChannel, nothing: str, _: str) -> None:
    await channel.queue_delete(nothing, if_unused=True, if_empty=True)


async def _write(channel: AbstractChannel, nothing: str, exchange: str) -> None:
    await channel.queue_unbind(nothing, exchange, routing_key=nothing)


async def _read(channel: AbstractChannel, nothing: str, _: str) -> None:
    await channel.basic_get(nothing)


_RIGHTS: Final[tuple[tuple[str, Ask], ...]] = (("declare", _configure), ("bind", _write), ("read", _read))


async def denied(link: Link, names: Names) -> list[str]:
    """Say what the user may not do with names under the prefix. Changes nothing.

    The broker tells permissions to nobody, and a passive declaration needs none. But it checks them before it
    looks for what a command is about: with a name that nothing has, a command is refused or finds nothing.

    Raises:
        BrokerError: The broker is unavailable.
    """
    problems: list[str] = []
    nothing = names.nothing()
    for verb, ask in _RIGHTS:
        async with link.bounded("trying permissions"):
            try:
                async with link.brief_channel() as channel:
                    await ask(channel, nothing, names.exchange)
            except ChannelNotFoundEntity:
                continue
            except ChannelAccessRefused as error:
                problems.append(
                    f"the user may not {verb} what begins with {names.prefix}.: grant configure, write and "
                    f"read on such names ({error})"
                )
    return problems
